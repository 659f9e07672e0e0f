"""False alarms where it counts: a long stationary stream through a real broker and the seven services.

    python benchmarks/drift/stationary_replay.py             100,000 images, 12 minutes on two cores
    python benchmarks/drift/stationary_replay.py --images 20000

Held-out images, on which no model was trained and no threshold calibrated, are sent by several devices; on
each the next image is of the same class 97 % of the time, as where a ward's patients arrive together. Labels
follow. Nothing changes, so every alarm is false. An alarm is raised when a device with no alarmed reading of
an image detector has one.
"""

from __future__ import annotations

import one_thread  # noqa: F401  # isort: skip  (above whatever imports numpy)

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measured import EPOCH
from medloop_schemas import (
    AdaptationRequested,
    DriftSignalled,
    Event,
    ImageAcquired,
    LabelConfirmed,
    Layer,
    MedloopError,
    Message,
    decode,
    encode,
    topic_of,
)
from medloop_services.bus.context import load_settings
from medloop_services.bus.frames import frame_of
from medloop_services.cli.options import tell
from medloop_services.cli.progress import training_bar
from medloop_services.detecting.stationary_streams import Kind, draw_classes, draw_images
from medloop_services.drift_detection.settings import DriftDetectionSettings
from medloop_services.model_choice import choose_model
from medloop_services.replay.consumer import read
from medloop_services.replay.dataset import load_dataset
from medloop_services.replay.producer import send
from medloop_services.replay.scenario import Stream, build_scenario
from medloop_services.replay.settings import ScenarioName
from medloop_services.simulation import publisher_settings
from medloop_services.stack import Stack, StackFailed, read_state, service_statuses
from progress import bar
from summary import interval

IMAGES, DEVICES = 100_000, 4
RATE = 150.0
"""Images a second: what two cores keep up with."""

LABEL_DELAY = 48
"""Images of a device until a label comes."""

SOURCE = "/medloop/bench"
QUIET_S = 120.0
"""Without a signal: then something is lost."""


@dataclass
class Tally:
    """What the signals say.

    Attributes:
        measured: images by device.
        alarmed: devices that stand alarmed, by kind of evidence.
        alarms: raised, by device and kind.
        first: detector and statistic of each alarm, how often.
        requests: adaptations requested.
    """

    measured: dict[str, int] = field(default_factory=dict)
    alarmed: set[tuple[str, str]] = field(default_factory=set)
    alarms: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)
    requests: set[str] = field(default_factory=set)

    def observe(self, event: Event) -> None:
        """Count one event; a repeat changes nothing."""
        if isinstance(event, AdaptationRequested):
            self.requests.add(event.event_id)
        elif isinstance(event, DriftSignalled) and event.images_seen >= self.measured.get(event.device_id, 0):
            self.measured[event.device_id] = event.images_seen
            for kind in ("images", "labels"):
                self._count(event, kind)

    def _count(self, event: DriftSignalled, kind: str) -> None:
        place = (event.device_id, kind)
        alarmed = [r for r in event.readings if r.alarmed and (r.layer is Layer.LABEL) == (kind == "labels")]
        if alarmed and place not in self.alarmed:
            self.alarms[place] += 1
            self.first[f"{alarmed[0].detector} {alarmed[0].layer.value}.{alarmed[0].statistic}"] += 1
        (self.alarmed.add if alarmed else self.alarmed.discard)(place)


def events(stream: Stream, images: int, devices: int, seed: int) -> Iterator[Event]:
    """Return images of all devices in turn, and each one's label some of its images later."""
    pool, shares = stream.domains.pool_before, stream.domains.shares_before
    random = np.random.default_rng(seed)
    length = images // devices
    rows = []
    for _ in range(devices):
        classes = draw_classes(Kind.CORRELATED, np.tile(shares, (length, 1)), random)
        rows.append(draw_images(classes, pool.labels, random))
    for sequence in range(length + LABEL_DELAY):
        for device in range(devices):
            moment = EPOCH + timedelta(seconds=sequence * devices + device)
            name = f"{stream.settings.site}/stationary-{device}"
            if sequence < length:
                yield ImageAcquired(
                    time=moment,
                    image_id=f"{name}/{sequence}",
                    device_id=name,
                    site_id=stream.settings.site,
                    study_id=f"{name}-{sequence}",
                    sequence=sequence,
                    frame=frame_of(pool.images[rows[device][sequence]]),
                )
            if sequence >= LABEL_DELAY:
                label = int(pool.labels[rows[device][sequence - LABEL_DELAY]])
                yield LabelConfirmed(
                    time=moment,
                    image_id=f"{name}/{sequence - LABEL_DELAY}",
                    device_id=name,
                    site_id=stream.settings.site,
                    sequence=sequence - LABEL_DELAY,
                    class_index=label,
                    class_name=stream.domains.class_names[label],
                )


async def ready(stack: Stack) -> None:
    """Wait until every service is."""
    deadline = time.monotonic() + QUIET_S
    while True:
        state = read_state(stack.folder)
        statuses = await service_statuses(state) if state else []
        if statuses and all(each.ready for each in statuses):
            return
        if time.monotonic() > deadline:
            raise StackFailed(f"not ready: {[each.name for each in statuses if not each.ready]}")
        await asyncio.sleep(0.25)


async def follow(stack: Stack, messages: Iterator[Message], rate: float, images: int, tally: Tally) -> None:
    """Send everything and count what comes of it, until every whole micro-batch has been judged."""
    await ready(stack)
    kinds = {topic_of(kind).name: kind for kind in (DriftSignalled, AdaptationRequested)}
    paced = [topic_of(ImageAcquired).name]
    sending = asyncio.create_task(send(stack.connection, messages, rate=rate, paced_topics=paced))
    latest = time.monotonic()
    with bar("judging images", images) as advance:
        done = 0
        records = read(stack.connection, list(kinds))
        try:
            while sum(tally.measured.values()) < images:
                record = await asyncio.wait_for(anext(records), QUIET_S)
                tally.observe(decode(kinds[record.topic], record.value))
                judged = sum(tally.measured.values())
                advance(judged - done)
                done, latest = judged, time.monotonic()
                stack.restart_dead()
        finally:
            sending.cancel()
    tell(f"the last signal came {time.monotonic() - latest:.0f} s ago")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="npz file or `phantoms`; default: MEDLOOP_DATA's PneumoniaMNIST")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"of all devices ({IMAGES})")
    parser.add_argument("--devices", type=int, default=DEVICES, help=f"that send them ({DEVICES})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"images a second ({RATE:g})")
    parser.add_argument("--seed", type=int, default=0, help="of the streams (0)")
    parser.add_argument("--json", action="store_true", help="one JSON line on standard output")
    arguments = parser.parse_args()
    stream = build_scenario(load_dataset(arguments.data, announce=tell), ScenarioName.DATA_DRIFT)
    with training_bar() as progress:
        choice = choose_model(stream, None, tell, progress)
    batch = 16 * arguments.devices
    images = arguments.images // batch * batch
    settings = {
        name: ",".join(value) if isinstance(value, list) else str(value)
        for name, value in publisher_settings(stream, choice).items()
    }
    tally = Tally()
    started = time.monotonic()
    with TemporaryDirectory(prefix="medloop-stationary-") as folder:
        stack = Stack(Path(folder), environment=settings)
        try:
            stack.start()
            messages = (
                encode(event, SOURCE) for event in events(stream, images, arguments.devices, arguments.seed)
            )
            asyncio.run(follow(stack, messages, arguments.rate, images, tally))
        finally:
            stack.stop()
    report(tally, images, time.monotonic() - started, arguments.json)


def report(tally: Tally, images: int, seconds: float, as_json: bool) -> None:
    """Print what was found beside what the contract allows."""
    contract = load_settings(DriftDetectionSettings)
    figures = []
    for kind, allowed in (
        ("images", images / contract.images_per_alarm),
        ("labels", images / contract.labels_per_false_alarm),
    ):
        alarms = sum(count for (_, of_kind), count in tally.alarms.items() if of_kind == kind)
        low, high = interval(alarms)
        figures.append((kind, alarms, low, high, allowed))
        missed = "" if alarms <= allowed else "  MISSED"
        print(
            f"alarms of {kind}: {alarms} (95 % interval {low:.1f} to {high:.1f}) in {images:,} images; "
            f"the contract allows {allowed:.0f}{missed}",
            file=sys.stderr if as_json else sys.stdout,
        )
    print(f"what alarmed first: {dict(tally.first) or 'nothing'}", file=sys.stderr if as_json else sys.stdout)
    print(
        f"adaptations requested: {len(tally.requests)}; {images / seconds:.0f} images a second",
        file=sys.stderr if as_json else sys.stdout,
    )
    if as_json:
        line = {"images": images, "requests": len(tally.requests), "first": dict(tally.first)}
        line |= {f"alarms_of_{kind}": alarms for kind, alarms, *_ in figures}
        line |= {f"allowed_of_{kind}": allowed for kind, *_, allowed in figures}
        print(json.dumps(line))


if __name__ == "__main__":
    try:
        main()
    except MedloopError as error:
        sys.exit(f"{error}")
