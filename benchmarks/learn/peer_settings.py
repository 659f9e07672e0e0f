"""What every peer is tuned in: a learning rate, and for some a weight. Chosen on validation images, once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("peer_settings.json")
"""What `tune_peers.py` chose: method → kind of drift → settings."""


@dataclass(frozen=True)
class PeerSettings:
    """Of a peer under one kind of drift.

    Attributes:
        rate: of AdamW.
        weight: λ of EWC on Fisher information of mean 1, λ of Avalanche's on its own, or the weights α = β of
            DER++; the other methods have none.
    """

    rate: float = 1e-3
    weight: float = 1.0


def settings_of(method: str, scenario: str) -> PeerSettings:
    """Return what was chosen for a method under a kind of drift, else the default."""
    return PeerSettings(**_chosen().get(method, {}).get(scenario, {}))


@lru_cache(maxsize=1)
def _chosen() -> dict[str, dict[str, dict[str, float]]]:
    chosen: dict[str, dict[str, dict[str, float]]] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return chosen
