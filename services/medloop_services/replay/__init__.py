"""Labelled images to streams that drift, and topics to files and back.

`dataset` loads images, `corruption` makes a new scanner, `scenario` turns both into events with late labels,
`recording` keeps topics in Parquet and `producer` sends events at a chosen rate.
"""
