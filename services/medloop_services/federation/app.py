"""The federation's composition: updates in; rounds and merged models out."""

from __future__ import annotations

from medloop_schemas import RoundClosed, RoundOpened, UpdateSubmitted

from medloop_services.bus.context import Context
from medloop_services.bus.processor import KeyedProcessor, Service
from medloop_services.federation.merger import PackageMerger, first_base
from medloop_services.federation.rounds import Rounds
from medloop_services.federation.settings import FederationSettings
from medloop_services.federation.state import FederationState


def build(context: Context) -> Service:
    """Return the service: one processor, keyed by federation."""
    settings = context.load(FederationSettings)
    base = first_base(settings, context.artifacts)
    rounds = Rounds(settings=settings, merger=PackageMerger(context.artifacts, settings))
    return Service(
        name="federation",
        processors=(
            KeyedProcessor(
                name="federation",
                inputs=(UpdateSubmitted,),
                outputs=(RoundOpened, RoundClosed),
                state=FederationState,
                initial=lambda _federation: FederationState(base=base),
                step=rounds.step,
            ),
        ),
    )
