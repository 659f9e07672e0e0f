"""`medloop simulate --sites N`: hospitals learn together in one process, beside each alone and all pooled."""
