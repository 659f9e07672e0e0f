"""Drift detectors, one a file, all of the shape that `detector.py` describes."""
