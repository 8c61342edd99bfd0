"""Options, runs, training, calibration, evaluation and tables: one topic a file."""
