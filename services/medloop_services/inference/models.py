"""Models in memory: loaded when a release first needs them, refused when broken, the last good one kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from medloop_model.engine import EngineOutput
from medloop_model.errors import ModelError
from medloop_schemas import InvalidEvent, ReleaseChanged, TransientError
from numpy.typing import NDArray
from prometheus_client import Counter

_log = structlog.get_logger(__name__)

REFUSED = Counter(
    "medloop_inference_refused_packages", "Released packages that could not be loaded", ["version", "code"]
)


@dataclass(frozen=True, slots=True)
class Model:
    """A network that can serve.

    Attributes:
        classes: class names, in the order of the logits.
        image_shape: (H, W) of the grey or (H, W, 3) of the colour images it takes.
        run: the forward pass over uint8 images (B, *image_shape).
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    run: Callable[[NDArray[np.uint8]], EngineOutput]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What serves in the place of a release.

    Attributes:
        release, model: the release asked for, or an earlier one.
        obstacle: why it is not the one asked for, or None.
    """

    release: ReleaseChanged
    model: Model
    obstacle: str | None


class ModelShelf:
    """The versions that serve or served last, the least recently used going first.

    Args:
        load: reads the package of a release; raises ModelError or InvalidEvent when it is broken for good,
            TransientError when its store is away.
        release_of: finds a site's release of an earlier version.
        capacity: versions kept.
    """

    def __init__(
        self,
        load: Callable[[ReleaseChanged], Model],
        release_of: Callable[[str, str], ReleaseChanged | None],
        capacity: int,
    ) -> None:
        self._load = load
        self._release_of = release_of
        self._capacity = capacity
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._refused: dict[str, InvalidEvent | ModelError] = {}

    def serving(self, release: ReleaseChanged) -> Chosen:
        """Return the release and its model, or the nearest earlier release whose model can be loaded.

        Raises:
            TransientError: none can be loaded now; the text says what is wrong with the one asked for.
        """
        reasons: list[str] = []
        for candidate in self._newest_first(release):
            try:
                return Chosen(candidate, self._model(candidate), reasons[0] if reasons else None)
            except (ModelError, InvalidEvent, TransientError) as error:
                reasons.append(str(error))
        raise TransientError(f"no model can serve site {release.site_id}: {reasons[0]}")

    def _newest_first(self, release: ReleaseChanged) -> list[ReleaseChanged]:
        chain = {release.version: release}
        earlier = release.previous_version
        while earlier is not None and earlier not in chain:
            found = self._release_of(release.site_id, earlier)
            if found is None:
                break
            chain[earlier] = found
            earlier = found.previous_version
        return list(chain.values())

    def _model(self, release: ReleaseChanged) -> Model:
        version = release.version
        if version in self._refused:
            raise self._refused[version]
        if version not in self._models:
            self._models[version] = self._checked(release)
        self._models.move_to_end(version)
        while len(self._models) > self._capacity:
            self._models.popitem(last=False)
        return self._models[version]

    def _checked(self, release: ReleaseChanged) -> Model:
        try:
            model = _as_released(release, self._load(release))
        except (ModelError, InvalidEvent) as error:
            self._refused[release.version] = error
            REFUSED.labels(release.version, error.code).inc()
            _log.error(
                "package refused, the earlier version goes on", version=release.version, reason=str(error)
            )
            raise
        return model


def _as_released(release: ReleaseChanged, model: Model) -> Model:
    if model.classes != release.classes:
        reason = f"the package of {release.version} knows {model.classes}, not {release.classes}"
        raise InvalidEvent("classes", "classes", reason)
    return model
