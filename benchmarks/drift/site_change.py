"""A real change of laboratory: how soon the other one is noticed by a model that knows only the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conditions import image_conditions
from experiment import CHANGED_IMAGES, CLEAN_IMAGES
from goals import SITE_CHANGE_DELAY
from medloop_services.bus.context import load_settings
from medloop_services.cli.options import tell
from medloop_services.replay.dataset import DEFAULT_FILES, DataSettings, load_dataset
from medloop_services.replay.settings import ScenarioName
from monitoring import Monitoring, Size
from progress import bar
from results import Results, SiteChange
from streams import Kind
from summary import delays

SCENARIO = ScenarioName.SITE_CHANGE


def measure_site_change(results: Results, shuffles: int, folder: Path, size: Size) -> None:
    """Count the shuffles in which each detector notices the other laboratory soon.

    The model is trained on the first laboratory's images alone, and kept in the user's cache.

    Args:
        results: gains a row a detector; none where MEDLOOP_DATA has no file that names laboratories.
        shuffles: streams, each drawn anew.
        folder: for the artifact store.
        size: of the pool, and the seed.
    """
    data = load_settings(DataSettings).data
    file = data / DEFAULT_FILES[SCENARIO] if data is not None and data.expanduser().is_dir() else None
    if file is None or not file.expanduser().is_file():
        tell(f"left out: a real change of laboratory (MEDLOOP_DATA has no {DEFAULT_FILES[SCENARIO]})")
        return
    dataset = load_dataset(str(file), scenario=SCENARIO, announce=tell)
    monitoring = Monitoring.of(dataset, SCENARIO, None, folder, replace(size, corruptions=()))
    experiment = replace(monitoring.images(), streams=shuffles)
    condition = next(
        one for one in image_conditions(SCENARIO, monitoring.domains, ()) if one.name == SCENARIO
    )
    with bar("another laboratory", shuffles) as advance:
        watched = experiment.first_alarms(condition, Kind.IID, advance)
    for detector, alarms in watched.items():
        seen = delays(alarms, CLEAN_IMAGES, CHANGED_IMAGES)
        soon = (CLEAN_IMAGES, CLEAN_IMAGES + SITE_CHANGE_DELAY)
        found = sum(alarm is not None and soon[0] < alarm <= soon[1] for alarm in alarms)
        results.site_changes.append(
            SiteChange(detector, len(alarms), found, seen.early, SITE_CHANGE_DELAY, seen.median)
        )
