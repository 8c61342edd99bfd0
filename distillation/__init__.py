"""How a teacher learns from a backbone."""
