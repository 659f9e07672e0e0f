"""Reads signals, writes adaptation requests: decides whether a site has drifted, and into what."""
