"""Results to look at: one page of what output folders hold."""
