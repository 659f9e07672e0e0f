"""Every method by the name that the command line and the table give it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

from adapting import Method
from medloop_learner import medloop, parsed_changes
from medloop_schemas import MedloopError
from medloop_services.replay.errors import DatasetError
from peer_settings import PeerSettings, settings_of
from peers_path import FOLDER
from plain_learners import article, fine_tune, head_only
from replay_learners import dark_experience_replay, experience_replay

AVALANCHE_EWC = "avalanche-ewc"
NONE, ORACLE, MEDLOOP = "none", "oracle", "medloop"
"""No adaptation; offline training on both domains; what is measured."""

UPDATES_AS_MEDLOOP = 6
"""Of medloop under data drift, on each mini-batch."""


class AvalancheMissing(MedloopError):
    """Avalanche is not installed."""

    code = "avalanche"


def of_avalanche(name: str) -> Callable[[PeerSettings], Method]:
    """Return what makes a method of `avalanche_peers`, which is imported only then: it takes its time."""

    def method(settings: PeerSettings) -> Method:
        try:
            peers = import_module("avalanche_peers")
        except ImportError as error:
            raise AvalancheMissing(
                f"Avalanche can't be used ({error}); `make bench-peers` installs it"
            ) from None
        made: Method = getattr(peers, name)(settings)
        return made

    return method


PEERS: dict[str, Callable[[PeerSettings], Method]] = {
    "fine-tune": fine_tune,
    "head": head_only,
    "article": article,
    "replay": experience_replay,
    f"replay-x{UPDATES_AS_MEDLOOP}": partial(experience_replay, steps=UPDATES_AS_MEDLOOP),
    "der++": dark_experience_replay,
    AVALANCHE_EWC: of_avalanche("avalanche_ewc"),
    "avalanche-replay": of_avalanche("avalanche_replay"),
}

METHODS = (NONE, ORACLE, MEDLOOP, *PEERS)


def usual_methods() -> list[str]:
    """Return the names of all methods that are installed."""
    return [name for name in METHODS if FOLDER.is_dir() or not name.startswith("avalanche")]


def method_of(name: str, scenario: str) -> Method:
    """Return a method that learns.

    Args:
        name: one of PEERS, `medloop`, or `medloop:` with changes of its plan, as `medloop:alpha=0.5`.
        scenario: kind of drift, for a peer's settings.

    Raises:
        DatasetError: there is no such method.
        ValueError: a change that the plan does not have.
    """
    base, _, changes = name.partition(":")
    if base == MEDLOOP:
        return medloop(parsed_changes(changes))
    if name not in PEERS:
        raise DatasetError(f"there is no method {name!r}; choose of {', '.join(METHODS)}")
    return PEERS[name](settings_of(name, scenario))
