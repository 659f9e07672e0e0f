"""`medloop tune`: one adaptation on labelled images, without monitoring, broker or stream of events."""

from __future__ import annotations

import numpy as np
from medloop_model.training.pipeline import MonitoringReport
from medloop_model.training.selector import Cause
from medloop_model.training.validation import Examples

from medloop_services.replay.scenario import Stream
from medloop_services.replay.split import Split
from medloop_services.report.summary import EXPECTED


def report_of(stream: Stream, labels: int) -> MonitoringReport:
    """Return what monitoring would report of a stream's drift, had it diagnosed it rightly.

    Args:
        stream: with images before and after the drift.
        labels: how many of the first images after it are labelled; all before it are.
    """
    after = slice(stream.drift_at, stream.drift_at + labels)
    known = len(stream.classes_before)
    return MonitoringReport(
        cause=Cause(EXPECTED[stream.scenario.value]),
        affected=stream.devices,
        old=_examples(stream.shown.select(np.arange(stream.drift_at))),
        new=_examples(stream.shown.select(np.arange(len(stream.shown))[after])),
        unlabelled=stream.shown.images[after.stop :],
        new_classes=stream.classes_after[known:],
    )


def _examples(split: Split) -> Examples:
    return Examples(split.images, split.labels, split.studies)
