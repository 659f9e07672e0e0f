"""A whole network as one TensorRT engine, described as data.

    fields, operations, description   the network as data; needs no library
"""
