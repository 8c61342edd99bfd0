"""A grid of trainings: what its tasks are, and where they run."""
