"""Accuracy per site and on the union, for the base, each site alone, federations and pooled training.

Shape suffixes: K hospitals
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from medloop_model.checkpoint import ModelPackage
from medloop_model.engine import Engine
from medloop_model.federation.aggregators import Aggregator
from medloop_model.federation.merging import MergeSettings
from numpy.typing import NDArray

from medloop_services.federating.arms import Arms
from medloop_services.federating.hospitals import Hospital
from medloop_services.report.evaluation import predict

PROXIMAL = 0.01
"""μ of FedProx; the paper tries 0.001 to 1."""

POISONED = "poisoned, "
WITHOUT = "without the poisoned, "


@dataclass(frozen=True, slots=True)
class Row:
    """One way to learn.

    Attributes:
        name: of the way.
        accuracy: (K,) at each site, at its own mix of classes.
        union: over all sites' patients.
    """

    name: str
    accuracy: tuple[float, ...]
    union: float


def compare(arms: Arms, settings: MergeSettings, poisoned: int = 0) -> list[Row]:
    """Train and measure all ways.

    Args:
        arms: trains them.
        settings: of the merge; every aggregator is tried.
        poisoned: so many sites, the first ones, cheat in a second run of each federation, and are not there
            in a third, which is what the second can come to at best. All rows are then of the others alone.
    """
    measured = arms.hospitals[poisoned:]

    def row(name: str, packages: Sequence[ModelPackage]) -> Row:
        return measure(name, packages, measured)

    rows = [row("base", [arms.base] * len(measured))]
    rows += [row(f"{each.name} alone", [arms.alone(each)] * len(measured)) for each in arms.hospitals]
    own = [arms.alone(each) for each in measured]
    rows.append(row("each site its own", own))
    for aggregator in Aggregator:
        chosen = replace(settings, aggregator=aggregator)
        rows.append(row(f"federated, {aggregator}", arms.federated(chosen)[poisoned:]))
        if poisoned:
            cheated = arms.federated(chosen, poisoned=poisoned)
            rows.append(row(f"{POISONED}{aggregator}", cheated[poisoned:]))
            honest = replace(arms, hospitals=measured)
            rows.append(row(f"{WITHOUT}{aggregator}", honest.federated(chosen)))
    prox = arms.federated(replace(settings, aggregator=Aggregator.WEIGHTED_MEAN), proximal=PROXIMAL)
    rows.append(row("federated, weighted-mean, FedProx", prox[poisoned:]))
    rows.append(row("pooled", [arms.pooled()] * len(measured)))
    return rows


def measure(name: str, packages: Sequence[ModelPackage], hospitals: Sequence[Hospital]) -> Row:
    """Accuracy of each hospital's model at that hospital, and over all patients.

    A class's recall is that of everybody's test images of it, as the hospital's scanner shows them; a
    hospital's accuracy is the mean of the recalls by its own mix of classes. So even a hospital with few
    patients of a class is judged by many. Hospitals count on the union by their numbers of images.
    """
    accuracy_K = [accuracy(package, hospital) for package, hospital in zip(packages, hospitals, strict=True)]
    sizes_K = [len(hospital.training) for hospital in hospitals]
    return Row(name, tuple(accuracy_K), float(np.average(accuracy_K, weights=sizes_K)))


def accuracy(package: ModelPackage, hospital: Hospital) -> float:
    """Σ share of a class · its recall."""
    labels = hospital.test.labels
    predicted = predict(Engine(package), hospital.test.images).argmax(axis=1)
    recall_N: NDArray[np.float64] = np.array(
        [(predicted[labels == label] == label).mean() for label in range(len(hospital.mix))]
    )
    return float(recall_N @ hospital.mix)
