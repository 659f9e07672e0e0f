"""Draws streams as `medloop detect` does when it measures its false-alarm rate."""

from medloop_services.detecting.stationary_streams import Index, Kind, Shares, draw_classes, draw_images

__all__ = ["Index", "Kind", "Shares", "draw_classes", "draw_images"]
