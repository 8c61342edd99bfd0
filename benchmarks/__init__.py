"""Measurements of speed and memory: what benchmark.py runs, and what it found."""
