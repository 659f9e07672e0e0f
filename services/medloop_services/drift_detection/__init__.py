"""Reads stats, labels and releases, writes signals: decides which detector of which layer has alarmed."""
