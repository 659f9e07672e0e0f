"""A toy service for bus and fault tests: tallies a device's images and says each running count as a label.

Its results depend on every image having been counted exactly once, so a lost or doubled one shows.
`python tally.py` runs it as a process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from medloop_schemas import (
    ConfigurationError,
    Event,
    Frame,
    ImageAcquired,
    InvalidEvent,
    LabelConfirmed,
)
from medloop_services.bus.context import load_settings
from medloop_services.bus.logs import configure_logs
from medloop_services.bus.processor import KeyedProcessor, Service, ServiceState
from medloop_services.bus.runner import run_service
from medloop_services.bus.settings import BusSettings
from pydantic import Field

START = datetime(2026, 1, 1, tzinfo=UTC)
RECENT = 5


class TallyState(ServiceState):
    entries: ClassVar[tuple[str, ...]] = ("recent",)

    count: int = 0
    last: int = -1
    total: int = 0
    recent: dict[int, str] = Field(default_factory=dict)


def step(state: TallyState, event: Event) -> tuple[TallyState, Sequence[Event]]:
    assert isinstance(event, ImageAcquired)
    if event.study_id == "bad":
        raise InvalidEvent("study", "study_id", "the study is bad")
    if event.study_id == "bug":
        raise ZeroDivisionError("a bug")
    recent = {**state.recent, event.sequence % RECENT: event.image_id}
    changed = TallyState(
        count=state.count + 1, last=event.sequence, total=state.total + event.sequence, recent=recent
    )
    return changed, (
        LabelConfirmed(
            time=event.time,
            image_id=event.image_id,
            device_id=event.device_id,
            site_id=event.site_id,
            sequence=state.count,
            class_index=changed.total % 7,
            class_name=f"after-{changed.count}",
        ),
    )


PROCESSOR = KeyedProcessor(
    name="tally",
    inputs=(ImageAcquired,),
    outputs=(LabelConfirmed,),
    state=TallyState,
    initial=lambda _key: TallyState(),
    step=step,
)


def image(device: str, sequence: int, study: str = "study") -> ImageAcquired:
    return ImageAcquired(
        time=START + timedelta(seconds=sequence),
        image_id=f"{device}-{sequence}",
        device_id=device,
        site_id="site",
        study_id=study,
        sequence=sequence,
        frame=Frame.inline(bytes(16), height=4, width=4),
    )


def main() -> int:
    settings = load_settings(BusSettings)
    configure_logs("tally", settings.log_level)
    try:
        return run_service("tally", lambda: Service("tally", (PROCESSOR,)), settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
