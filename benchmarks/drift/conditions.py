"""What may change in a stream: the scanner, the patients, the classes, the readers, the site.

Shapes: n images of a pool, c classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from medloop_services.replay.corruption import FAULTS, SEVERITIES, corrupt
from medloop_services.replay.domains import Domains
from medloop_services.replay.policy import Policy, raised_bar, swapped_names
from medloop_services.replay.settings import ScenarioName
from medloop_services.replay.split import Split
from streams import Shares

MILD_SEVERITIES = (1, 2)
REFERENCE_SEVERITIES = (3, 5)
"""Of a corruption: shown beside the mild ones, counted in no goal."""

UNSEEN_CORRUPTIONS = (
    "speckle-noise",
    "shot-noise",
    "dead-pixels",
    "pixelate",
    "motion-blur",
    "vignette",
    "banding",
    "collimation",
)
"""Chosen, with their severities, before the detectors were designed, which has never looked at them."""

PRIOR_BEFORE = 0.15
PRIORS_AFTER = (0.30, 0.50)
"""Share of the last class, before and after the patients change."""

RELABELLED_SHARES = (0.3, 0.5)
"""Two classes: share of positives that readers come to call negative; with more classes two swap names."""

CLEAN = "clean"
READERS = "readers"
PRIOR = "prior"
FAULT = "fault"

PRIOR_MOVES = (0.3, 0.4)
"""By how much the share of the last class moves in a diagnosed prior shift: to where there is room."""


@dataclass(frozen=True)
class Condition:
    """One change.

    Attributes:
        name: of the row.
        group: what kind of change it is.
        pool: name of the images after the change.
        before, after: (c,) how often each class is shown, before and after the change.
        mild: whether it counts for the goals.
    """

    name: str
    group: str
    pool: str
    before: Shares
    after: Shares
    mild: bool


def corrupted_conditions(
    domains: Domains, corruptions: Sequence[str], severities: Sequence[int], mild: bool
) -> list[Condition]:
    """Return a condition for each corruption and severity.

    Args:
        domains: say how often each class is shown.
        corruptions: names.
        severities: of each.
        mild: whether they count for the goals.
    """
    usual = domains.shares_before
    return [
        Condition(pool_name(name, severity), name, pool_name(name, severity), usual, usual, mild)
        for severity in severities
        for name in corruptions
    ]


def image_conditions(scenario: ScenarioName, domains: Domains, corruptions: Sequence[str]) -> list[Condition]:
    """Return every change that images show.

    Args:
        scenario: beside corruptions and patients, a new class or another site is shown where it is named.
        domains: both sides of it.
        corruptions: names.
    """
    usual, known = domains.shares_before, domains.known
    before = with_last_class(usual, known, PRIOR_BEFORE)
    conditions = [
        *corrupted_conditions(domains, corruptions, MILD_SEVERITIES, True),
        *(
            Condition(
                f"prior {PRIOR_BEFORE:.0%} to {share:.0%}",
                PRIOR,
                CLEAN,
                before,
                with_last_class(usual, known, share),
                True,
            )
            for share in PRIORS_AFTER
        ),
        *corrupted_conditions(domains, corruptions, REFERENCE_SEVERITIES, False),
    ]
    if has_own_pool(scenario):
        conditions.append(Condition(scenario, scenario, scenario, usual, domains.shares_after, False))
    return conditions


def image_pools(
    scenario: ScenarioName, domains: Domains, corruptions: Sequence[str], images: int | None, seed: int
) -> Iterator[tuple[str, Split]]:
    """Return the held-out images by name: clean, under each corruption and
    severity, from a broken device, and after the scenario.

    Args:
        scenario, domains, corruptions: as for `image_conditions`.
        images: at most so many of a pool, drawn; all unless given.
        seed: of the draw and the noise.
    """
    clean = _drawn(domains.pool_before, images, seed)
    yield CLEAN, clean
    for name in corruptions:
        for severity in SEVERITIES:
            changed = corrupt(clean.images, name, severity, (seed, severity))
            yield pool_name(name, severity), clean.repainted(changed)
    for name in FAULTS:
        yield name, clean.repainted(corrupt(clean.images, name, 1, seed))
    if has_own_pool(scenario):
        yield scenario, _drawn(domains.pool_after, images, seed)


def has_own_pool(scenario: ScenarioName) -> bool:
    """Return whether other images than before the change are shown after it, untouched."""
    return scenario in (ScenarioName.NEW_CLASS, ScenarioName.SITE_CHANGE)


def label_policies(domains: Domains, shares: Sequence[float] = RELABELLED_SHARES) -> dict[str, Policy]:
    """Return changes of what readers call the same images, by name.

    Args:
        domains: whose training images say which positives are faint.
        shares: of the positives that become negative, where there are two classes.
    """
    if domains.known == 2:
        return {f"readers drop {share:.0%}": raised_bar(domains.training, share) for share in shares}
    return {"readers swap 2 names": swapped_names(0, domains.known // 2)}


def prior_conditions(domains: Domains) -> list[Condition]:
    """Return changes of the patients alone, away from the mix that the reference has."""
    usual, known = domains.shares_before, domains.known
    share = float(usual[known - 1] / usual[:known].sum())
    moved = [share - move if share > 1 / 2 else share + move for move in PRIOR_MOVES]
    return [
        Condition(
            f"prior {share:.0%} to {after:.0%}",
            PRIOR,
            CLEAN,
            usual,
            with_last_class(usual, known, after),
            False,
        )
        for after in moved
    ]


def fault_conditions(domains: Domains) -> list[Condition]:
    """Return a condition for each way in which a device may break."""
    usual = domains.shares_before
    return [Condition(name, FAULT, name, usual, usual, False) for name in FAULTS]


def label_conditions(domains: Domains, policies: Sequence[str]) -> list[Condition]:
    """Return a condition for each change that only late labels show."""
    usual = domains.shares_before
    return [Condition(name, READERS, name, usual, usual, False) for name in policies]


def pool_name(corruption: str, severity: int) -> str:
    """Return what a corruption's images are called."""
    return f"{corruption} {severity}"


def with_last_class(shares: Shares, known: int, share: float) -> Shares:
    """Return shares in which the last of the known classes has another one, and the others keep theirs alike.

    Args:
        shares: (c,).
        known: classes of the model.
        share: of its last class.
    """
    others = shares.copy()
    others[known - 1 :] = 0
    changed: Shares = others / others.sum() * (1 - share)
    changed[known - 1] = share
    return changed


def _drawn(split: Split, images: int | None, seed: int) -> Split:
    if images is None or len(split) <= images:
        return split
    return split.select(np.sort(np.random.default_rng(seed).permutation(len(split))[:images]))
