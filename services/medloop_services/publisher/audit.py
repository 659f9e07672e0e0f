"""The audit chain: each record carries the hash of the one before, so that none can be changed unseen.

A chain alone does not show that its end was cut off; the last hash has to be kept somewhere else as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from medloop_schemas import AuditRecorded, MedloopError
from medloop_schemas.audit import GENESIS
from pydantic import BaseModel, ConfigDict

ACTOR = "publisher"

Evidence = Mapping[str, float | int | str | bool | None]


class Decision(StrEnum):
    """What is recorded."""

    RELEASED = "released"
    """A site's first model."""
    GATE_PASSED = "gate-passed"
    GATE_FAILED = "gate-failed"
    CANARY_STARTED = "canary-started"
    CANARY_PASSED = "canary-passed"
    """A person has to approve it now."""
    PROMOTED = "promoted"
    REJECTED = "rejected"
    """By a person, before it was tried."""
    ROLLED_BACK = "rolled-back"


class BrokenChain(MedloopError):
    """A record was changed, removed, added or reordered.

    Args:
        site_id: whose chain.
        number: of the first record that does not fit.
        reason: in what way.
    """

    code = "broken-chain"

    def __init__(self, site_id: str, number: int, reason: str) -> None:
        super().__init__(f"the audit chain of {site_id} is broken at record {number}: {reason}")
        self.site_id = site_id
        self.number = number


class AuditChain(BaseModel):
    """The end of a site's chain: how many records it has, and the last one's hash."""

    model_config = ConfigDict(frozen=True)

    length: int = 0
    last_hash: str = GENESIS

    def recorded(
        self,
        site_id: str,
        time: datetime,
        *,
        decision: Decision,
        version: str,
        reason: str,
        evidence: Evidence,
        actor: str = ACTOR,
    ) -> tuple[AuditChain, AuditRecorded]:
        """Return the chain with one more record, and the record."""
        record = AuditRecorded(
            time=time,
            site_id=site_id,
            number=self.length,
            decision=decision,
            version=version,
            actor=actor,
            reason=reason,
            evidence=dict(evidence),
            previous_hash=self.last_hash,
        )
        return AuditChain(length=self.length + 1, last_hash=record.record_hash), record


def verify_chains(records: Iterable[AuditRecorded]) -> dict[str, AuditChain]:
    """Check every site's records, each site's in the order of its numbers; exact repeats are no harm.

    Returns:
        Each site's chain, to be compared with a last hash kept elsewhere.

    Raises:
        BrokenChain: names the first record that does not fit.
    """
    chains: dict[str, AuditChain] = {}
    for record in sorted(records, key=lambda record: (record.site_id, record.number)):
        site, number = record.site_id, record.number
        chain = chains.get(site, AuditChain())
        if number == chain.length - 1 and record.record_hash == chain.last_hash:
            continue
        if number > chain.length:
            raise BrokenChain(site, chain.length, "it is missing")
        if number < chain.length:
            raise BrokenChain(site, number, "two different records have this number")
        if record.previous_hash != chain.last_hash:
            raise BrokenChain(site, number, "it does not carry the hash of the record before it")
        chains[site] = AuditChain(length=number + 1, last_hash=record.record_hash)
    return chains
