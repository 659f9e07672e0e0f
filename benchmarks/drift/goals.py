"""What the monitoring is aimed at; the table says MISSED where it is not reached."""

from __future__ import annotations

from ours import PANEL
from results import Goal, Results
from streams import Kind

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

CONFIDENTLY_WRONG = 0.01
"""At most: share of random scenarios in which another cause is named with a probability above 0.9."""

SITE_CHANGE_DELAY = 40
SITE_CHANGE_FOUND = 0.95
"""At least this share of shuffles notices the other laboratory within so many of its images: 19 of 20."""


def judged(results: Results) -> list[Goal]:
    """Return what was reached of every goal that was measured; an infinite mean counts as its lower bound."""
    iid, sticky = Kind.IID, Kind.CORRELATED
    cost = next(cost for cost in results.costs if cost.detector == PANEL)
    goals = [
        Goal("mild delay, independent streams, images", results.mild_delay(PANEL, iid), MILD_DELAY, False),
        Goal("mild power, independent streams", results.mild_power(PANEL, iid), MILD_POWER, True),
        Goal("images a false alarm, independent streams", _mean(results, iid), IMAGES_PER_FALSE_ALARM, True),
        Goal(
            "mild delay, correlated streams, images",
            results.mild_delay(PANEL, sticky),
            CORRELATED_MILD_DELAY,
            False,
        ),
        Goal(
            "images a false alarm, correlated streams", _mean(results, sticky), IMAGES_PER_FALSE_ALARM, True
        ),
        Goal("all detectors, µs an image", cost.microseconds, MICROSECONDS_AN_IMAGE, False),
        Goal("all detectors, bytes a device", float(cost.state_bytes or 0), STATE_BYTES, False),
    ]
    right = sum(row.get(cause, 0) for cause, row in results.confusion.items())
    tried = sum(sum(row.values()) for row in results.confusion.values())
    if tried:
        goals.append(Goal("scenarios whose cause is named, share", right / tried, DIAGNOSED, True))
        wrong = sum(results.confidently_wrong.values())
        goals.append(Goal("scenarios wrong with confidence, share", wrong / tried, CONFIDENTLY_WRONG, False))
    for row in results.site_changes:
        if row.detector == PANEL:
            name = f"shuffles that notice another laboratory in {row.within} images"
            goals.append(Goal(name, row.found / row.shuffles, SITE_CHANGE_FOUND, True))
    return goals


def _mean(results: Results, stream: Kind) -> float:
    run = results.run_length(PANEL, stream)
    return run.mean if run.alarms else run.low
