"""Sites of a federation that do not train: weights move at random, half of the way as everybody's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from medloop_model import pretrained
from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.federation.compression import compress
from medloop_model.federation.signature import public_half, sign
from medloop_model.federation.update import difference
from medloop_schemas import RoundClosed, UpdateSubmitted
from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.processor import KeyedProcessor
from medloop_services.participation import Adapted, Participation
from safetensors.numpy import load, save

START = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLES = 64
SPREAD = 1e-3


def key_of(site: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(site.encode()).digest())


def public_keys(sites: Iterable[str]) -> str:
    """As MEDLOOP_FEDERATION_SITES wants them."""
    return ",".join(f"{site}={public_half(key_of(site))}" for site in sites)


def signed(update: UpdateSubmitted) -> UpdateSubmitted:
    """Return an update as its site signs it."""
    return update.model_copy(update={"signature": sign(update.signed_content, key_of(update.site_id))})


@dataclass
class Ward:
    """One site; `base` is what it runs, `trained` what it last made of it."""

    participation: Participation
    base: ModelPackage
    trained: ModelPackage

    def update(
        self,
        request: str = "request",
        samples: int = SAMPLES,
        time: datetime = START,
        poison: float = 1.0,
    ) -> UpdateSubmitted:
        self._train(request, poison)
        adapted = Adapted(self.base, self.trained, "ward-base", request, 1, samples)
        return self.participation.submit(adapted, time)[0]

    def signed(self, update: UpdateSubmitted) -> UpdateSubmitted:
        return update.model_copy(update={"signature": sign(update.signed_content, self.participation.key)})

    def payload(self, *, infinite: bool = False, wider: bool = False) -> bytes:
        """What an update can't be."""
        tensors = load(compress(difference(self.base, self.trained, SAMPLES)).payload)
        if infinite:
            tensors["delta.steps"] = np.full_like(tensors["delta.steps"], np.inf)
        if wider:
            tensors["delta.codes"] = tensors["delta.codes"][:-8]
        return save(tensors)

    def _train(self, request: str, poison: float) -> None:
        own, common = drawn(f"{self.participation.site_id}/{request}"), drawn(request)
        latent = {
            name: (
                weight + poison * sum(draw.normal(0, SPREAD / 2**0.5, weight.shape) for draw in (own, common))
            ).astype(np.float16)
            for name, weight in self.base.latent.items()
        }
        self.trained = replace(self.base, latent=latent)


def drawn(seed: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))


def ward_of(site: str, store: ArtifactStore, federation: str = "hospitals") -> Ward:
    base = load_package(pretrained.path("phantom"), parts=("latent", "fisher"))
    return Ward(Participation(federation, site, key_of(site), store), base, base)


MEMBERS = 12
QUORUM = 10
REPEATED = 3
"""Every update is sent so often: a repeat must change nothing."""


def members_of(federation: str) -> list[str]:
    return [f"{federation}-{number}" for number in range(MEMBERS)]


def federated(
    processor: KeyedProcessor[Any], federation: str, count: int, store: ArtifactStore
) -> list[UpdateSubmitted]:
    """Return so many updates of a federation: a site goes on from what the rounds before have merged."""
    wards = [ward_of(site, store, federation) for site in members_of(federation)]
    state = processor.initial(federation)
    sent: list[UpdateSubmitted] = []
    while len(sent) < count:
        number = len(sent) // REPEATED
        ward = wards[number % MEMBERS]
        update = ward.update(request=f"request-{number}", time=START + timedelta(minutes=number))
        sent += [update] * REPEATED
        state, outputs = processor.step(state, update)
        for closed in outputs:
            if isinstance(closed, RoundClosed):
                late = next(each for each in wards if each.participation.site_id == closed.site_id)
                late.base = late.participation.take_up(late.trained, closed)
    return sent
