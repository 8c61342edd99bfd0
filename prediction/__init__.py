"""A trained detector at work on new pictures."""
