"""Networks: teacher, student and autoencoder, and the detector that owns them."""
