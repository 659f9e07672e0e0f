"""Reads signals, writes diagnoses and requests for labels and adaptations: decides what has changed at a site."""
