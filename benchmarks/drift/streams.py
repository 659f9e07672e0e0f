"""Draws streams as `medloop detect` does when it measures its false-alarm rate."""

from medloop_services.detecting.stationary_streams import STAY, Index, Kind, Shares, draw_classes, draw_images

__all__ = ["STAY", "Index", "Kind", "Shares", "draw_classes", "draw_images"]
