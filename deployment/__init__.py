"""A trained detector as one file for other runtimes: its graph, its writers, its readers."""
