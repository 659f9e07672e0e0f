"""`medloop bench`: which benchmarks run, and what is said where they can't."""

from __future__ import annotations

import json
import shutil

import pytest
from medloop_schemas import ConfigurationError
from medloop_services.cli.models import BenchmarkFailed, bench


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_without_a_gpu_the_figures_are_empty_and_it_says_why(tmp_path, capfd):
    figures = tmp_path / "figures.json"
    bench("kernels", backend="cuda", json=figures)
    assert json.loads(figures.read_text()) == []
    assert "no figures: no GPU can be used" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("what", "backend", "sentence"),
    [
        ("kernels", "tpu", "--backend tpu: choose cpu or cuda"),
        ("stream", "cuda", "only kernels run on a GPU, not stream"),
        ("nothing", "cpu", "no benchmark of 'nothing' here"),
    ],
)
def test_what_can_not_be_measured_is_refused(what, backend, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        bench(what, backend=backend)


def test_an_option_that_a_benchmark_does_not_have_is_refused_by_it(capfd):
    with pytest.raises(BenchmarkFailed, match=r"bench_drift\.py failed with 2"):
        bench("drift", ["--no-such-option"])
    assert "--no-such-option" in capfd.readouterr().err
