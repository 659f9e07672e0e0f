"""`medloop demo`: the whole loop on a real broker, on a stream that drifts, watched live."""
