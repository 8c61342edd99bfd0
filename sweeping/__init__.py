"""A grid of runs, on this machine or on Ray."""
