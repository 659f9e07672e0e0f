"""What the fault tests play again under another name is what was recorded."""

from __future__ import annotations

from pathlib import Path

from federated_sites import QUORUM, REPEATED
from medloop_schemas import Event, RoundClosed
from medloop_services.federation.app import build
from medloop_services.loop import InProcessLoop
from recorded_loop import RECORDED_SITE, context, moved, played

OTHER = "other-site"


def test_a_federation_recorded_once_is_merged_alike_under_another_name(tmp_path: Path) -> None:
    """Every update is still of the weights that the rounds before have come to, and signed by its site."""
    service = build(context(tmp_path, [RECORDED_SITE, OTHER]))
    closed: dict[str, list[RoundClosed]] = {RECORDED_SITE: [], OTHER: []}
    for site, rounds in closed.items():
        said: list[Event] = []
        loop = InProcessLoop((service,), said.append)
        loop.publish(played((), service, site, 3 * QUORUM * REPEATED, tmp_path))
        assert not loop.dead_letters
        rounds += [event for event in said if isinstance(event, RoundClosed)]
    assert len({event.merged_sha256 for event in closed[RECORDED_SITE]}) >= 2
    assert closed[OTHER] == [moved(event, OTHER) for event in closed[RECORDED_SITE]]
