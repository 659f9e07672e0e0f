"""Inference: reads images and releases, writes predictions, decides which version serves which image."""
