"""Runs images through the services that measure them: the released model, and feature_stats' own core."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from measured import EPOCH, Measured
from medloop_model.checkpoint import load_package
from medloop_model.statistics import Reference
from medloop_schemas import ImageAcquired, ImageStatistics, ReleaseChanged, StatsMeasured
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.context import Context, load_settings
from medloop_services.bus.frames import frame_of
from medloop_services.bus.processor import KeyedProcessor, MapProcessor
from medloop_services.drift_detection.panel import Panel
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.feature_stats.app import build as build_feature_stats
from medloop_services.inference.app import build as build_inference
from medloop_services.publisher.app import build as build_publisher
from medloop_services.replay.split import Split

SITE, DEVICE = "bench", "device"
AT_ONCE = 64


class Probe:
    """One model version in service, its calibrated detectors, and what measures images by it.

    Args:
        model: a package with a monitoring reference.
        folder: for the artifact store.

    Attributes:
        reference, panel: the model's.
        context: of its services.
        release: by which it serves.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        self.reference = Reference.from_tensors(load_package(model, parts=("reference",)).reference)
        self.panel = Panel.calibrated(self.reference, load_settings(DriftDetectionSettings))
        self.context = Context(
            ArtifactStore((folder / "artifacts").resolve().as_uri(), cache=folder / "cache"),
            overrides={
                "MEDLOOP_PUBLISHER_SITES": [SITE],
                "MEDLOOP_PUBLISHER_MODEL": str(model),
                "MEDLOOP_FEATURE_STATS_BATCH_IMAGES": 1,  # so that none waits for a batch to fill
            },
        )
        inference = build_inference(self.context)
        bootstrap = build_publisher(self.context).bootstrap()
        self.release = next(event for event in bootstrap if isinstance(event, ReleaseChanged))
        inference.followers[0].apply(self.release)
        served, measured = inference.processors[0], build_feature_stats(self.context).processors[0]
        if not isinstance(served, MapProcessor) or not isinstance(measured, KeyedProcessor):
            raise TypeError("inference is a map and feature_stats has a state")
        self._inference: MapProcessor = served
        self._feature_stats: KeyedProcessor[Any] = measured

    def measure(self, split: Split, advance: Callable[[int], None] = lambda _: None) -> Measured:
        """Return the statistics of images, each measured alone.

        Args:
            split: the images.
            advance: told how many more are done.
        """
        state = self._feature_stats.initial(DEVICE)
        images: list[ImageStatistics] = []
        for start in range(0, len(split), AT_ONCE):
            events = [_acquired(split, row) for row in range(start, min(start + AT_ONCE, len(split)))]
            for event, outcome in zip(events, self._inference.map(events), strict=True):
                if isinstance(outcome, Exception):
                    raise outcome
                state, _ = self._feature_stats.step(state, event)
                for prediction in outcome:
                    state, outputs = self._feature_stats.step(state, prediction)
                    images += [
                        image
                        for output in outputs
                        if isinstance(output, StatsMeasured)
                        for image in output.images
                    ]
            advance(len(events))
        return Measured.of(images, split.labels, self.panel.baseline)


def _acquired(split: Split, row: int) -> ImageAcquired:
    return ImageAcquired(
        time=EPOCH,
        image_id=f"image-{row}",
        device_id=DEVICE,
        site_id=SITE,
        study_id=f"study-{row}",
        sequence=row,
        frame=frame_of(split.images[row]),
    )
