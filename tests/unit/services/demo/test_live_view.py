from __future__ import annotations

from io import StringIO

from medloop_services.demo.run import sentences
from medloop_services.demo.view import draw
from medloop_services.report.trace import Trace
from medloop_services.stack import ServiceStatus
from rich.console import Console

WAITING = "ward is undecided: waiting for the labels of 48 images [6 so far]"
BROKEN = "the package of ward-2 can't be used; ward-1 goes on serving"


def shown(*notes: str) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(draw(Trace(), title="demo", images=100, drift_at=50, phase="streaming", notes=notes))
    return console.export_text()


def test_the_view_shows_what_a_diagnosis_waits_for() -> None:
    assert WAITING in shown(WAITING), "as it is said, brackets and all"
    assert "undecided" not in shown()


def test_what_is_wrong_stands_before_what_is_worth_knowing() -> None:
    statuses = [
        ServiceStatus("event_aggregation", True, (), notes=(WAITING,)),
        ServiceStatus("inference", True, (), degraded=(BROKEN,)),
        ServiceStatus("publisher", False, ("is not running",)),
    ]
    assert sentences(statuses) == (f"inference is degraded: {BROKEN}", WAITING)
