"""Reads images and predictions, writes stats: decides nothing, measures four layers of every served image."""
