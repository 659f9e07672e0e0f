"""Bytes that forward passes move are counted, as many as the network says, and the same for every image."""

from __future__ import annotations

import numpy as np
from medloop_kernels import select
from medloop_model.architecture import ward
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package
from medloop_services.inference.traffic import MOVED, counted
from prometheus_client import REGISTRY

PACKAGE = export_package(BiTMedViT(ward(28, 1, ("normal", "opacity"))), {})
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)


def moved(what: str) -> float:
    return REGISTRY.get_sample_value("medloop_inference_moved_bytes_total", {"what": what}) or 0.0


def test_bytes_of_forward_passes_are_counted() -> None:
    MOVED.clear()
    other = Engine(PACKAGE)
    other(IMAGES[:1])
    assert other.compiled is not None
    of_one = other.compiled.traffic
    assert of_one.weights >= sum(layer.nbytes for layer in PACKAGE.packed.values()) / 2
    run = counted(Engine(PACKAGE))
    run(IMAGES[:1])
    assert (moved("weights"), moved("activations")) == (of_one.weights, of_one.activations)
    assert (run(IMAGES).logits == other(IMAGES).logits).all()
    assert (moved("weights"), moved("activations")) == (4 * of_one.weights, 4 * of_one.activations)


def test_a_back_end_that_counts_nothing_serves_all_the_same() -> None:
    engine = Engine(PACKAGE, select("reference"))
    assert counted(engine) is engine
