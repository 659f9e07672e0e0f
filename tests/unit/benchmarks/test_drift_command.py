"""`medloop bench drift` on a few drawn images: every section, as JSON and as pictures."""

from __future__ import annotations

import json

import bench_drift
import pytest
from medloop_services.cli import app
from medloop_services.replay.errors import DatasetError
from plot_overview import draw
from typer.testing import CliRunner

TINY = [
    *("--data", "phantoms", "--pool", "60", "--streams", "1", "--scenarios", "2", "--shuffles", "0"),
    *("--images", "320", "--peers", "river"),
    *("--corruptions", "brightness-up"),
]


@pytest.mark.timeout(120)
def test_every_figure_is_written_and_drawn(tmp_path, capfd):
    figures, plots = tmp_path / "figures.json", tmp_path / "plots"
    command = ["bench", "drift", "--json", str(figures), *TINY, "--seed", "1", "--plots", str(plots)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output + capfd.readouterr().err

    rows = json.loads(figures.read_text())
    assert {row["figure"] for row in rows} == {"delay", "false alarms", "cost", "diagnosis", "goal"}
    assert {row["seed"] for row in rows} == {1}
    delays = [row for row in rows if row["figure"] == "delay"]
    assert {row["stream"] for row in delays} == {"iid", "correlated"}
    assert {"medloop panel", "medloop cusum", "river ADWIN", "medloop labels"} <= {
        row["detector"] for row in delays
    }
    strongest = next(
        row
        for row in delays
        if (row["detector"], row["condition"], row["stream"]) == ("medloop panel", "brightness-up 5", "iid")
    )
    assert strongest["delays"]["early"] or strongest["delays"]["power"] == 1
    diagnosed = [sum(row["diagnosed"].values()) for row in rows if row["figure"] == "diagnosis"]
    assert sum(diagnosed) == 2
    assert {file.name for file in plots.glob("*.png")} == {
        "delays_iid.png",
        "delays_correlated.png",
        "run_lengths.png",
    }
    assert "pool: 60 held-out images of phantoms" in capfd.readouterr().err

    independent, sticky = draw(rows).axes
    assert [axes.get_title(loc="left") for axes in (independent, sticky)] == [
        "independent images",
        "classes stick together",
    ]
    assert {"medloop panel", "river ADWIN"} <= {text.get_text() for text in independent.texts}


def test_a_corruption_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench_drift.py", "--corruptions", "fog"])
    with pytest.raises(DatasetError, match="there is no corruption 'fog'; choose of brightness-up"):
        bench_drift.main()
