"""Reads signals, writes diagnoses, label and adaptation requests: decides what has changed at a site."""
