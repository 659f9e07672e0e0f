"""What the monitoring is aimed at; the table says MISSED where it is not reached."""

from __future__ import annotations

IMAGES_PER_FALSE_ALARM = 5_000.0
"""At least, on held-out stationary streams: drawn independently, and with classes that stick together."""

MILD_DELAY = 45.0
"""At most: geometric mean over the mild conditions of the median delay, images; independent streams."""

MILD_POWER = 0.99
"""At least: share of mild streams that are noticed before they end."""

CORRELATED_MILD_DELAY = 150.0
"""At most: as MILD_DELAY, on streams whose classes stick together."""

MICROSECONDS_AN_IMAGE = 200.0
"""At most: all detectors together, one core."""

STATE_BYTES = 256 * 1024
"""At most: what is remembered of a device."""

DIAGNOSED = 0.95
"""At least: share of random scenarios whose cause is named."""

SITE_CHANGE_DELAY = 40
SITE_CHANGE_FOUND = 0.95
"""At least this share of shuffles notices the other laboratory within so many of its images: 19 of 20."""
