"""How an image is scored, and a detector calibrated."""
