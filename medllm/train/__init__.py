"""Training: masked autoencoding, closed questions, and the recipe of the reference model."""
