"""A site's part in a federation: what it submits after training, and what it makes of what was merged."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from medloop_model.checkpoint import ModelPackage, Tensors, load_package
from medloop_model.errors import ModelError
from medloop_model.federation.compression import compress
from medloop_model.federation.merging import Merged, with_merged
from medloop_model.federation.signature import sign
from medloop_model.federation.update import difference
from medloop_schemas import InvalidEvent, RoundClosed, UpdateSubmitted

from medloop_services.bus.artifacts import ArtifactStore

UNSIGNED = "0" * 128


@dataclass(frozen=True, slots=True)
class Adapted:
    """What a site has trained and why.

    Attributes:
        base: the package that was trained, with its latent weights.
        trained: the result, with its latent weights and Fisher information.
        base_version: the base's version.
        request_id: the adaptation request that it answers.
        attempt: of the request.
        samples: labelled images behind it.
    """

    base: ModelPackage
    trained: ModelPackage
    base_version: str
    request_id: str
    attempt: int
    samples: int


@dataclass(frozen=True, slots=True)
class Participation:
    """One site in one federation.

    Attributes:
        federation: its name.
        site_id: the site.
        key: the site's private key.
        artifacts: where payloads go and merged models come from.
        share_norms: whether norms and scales are shared as well; the same at every site.
    """

    federation: str
    site_id: str
    key: Ed25519PrivateKey
    artifacts: ArtifactStore
    share_norms: bool = False

    def submit(
        self, adapted: Adapted, time: datetime, residual: Tensors | None = None
    ) -> tuple[UpdateSubmitted, Tensors]:
        """Store and sign an update.

        Args:
            adapted: what was trained.
            time: of the last image it was trained on.
            residual: what the site's last update could not say, or None.

        Returns:
            The event, and the residual for the next update.

        Raises:
            ModelError: base and trained model don't fit together, or a weight is a NaN or an infinity.
            TransientError: the store is away.
        """
        update = difference(adapted.base, adapted.trained, adapted.samples, norms=self.share_norms)
        packed = compress(update, residual)
        with tempfile.TemporaryDirectory(prefix="medloop-update-") as folder:
            path = Path(folder) / "update.safetensors"
            path.write_bytes(packed.payload)
            payload = self.artifacts.put(path)
        unsigned = UpdateSubmitted(
            time=time,
            federation=self.federation,
            site_id=self.site_id,
            request_id=adapted.request_id,
            attempt=adapted.attempt,
            base_version=adapted.base_version,
            base_sha256=update.base_sha256,
            samples=adapted.samples,
            payload=payload,
            signature=UNSIGNED,
        )
        signature = sign(unsigned.signed_content, self.key)
        return unsigned.model_copy(update={"signature": signature}), packed.residual

    def take_up(self, own: ModelPackage, closed: RoundClosed) -> ModelPackage:
        """The merged model with the site's own norms and scales, packed; its reference has to be measured.

        Args:
            own: the site's trained model, with its latent weights.
            closed: the round's result.

        Raises:
            InvalidEvent: the merged package is broken, or of another network.
            TransientError: the store is away.
        """
        try:
            package = load_package(self.artifacts.fetch(closed.merged), parts=("latent", "fisher"))
            merged = Merged(package.latent, package.fisher)
            return with_merged(own, merged, {"federation": self.federation, "round": closed.number})
        except ModelError as error:
            raise InvalidEvent(error.code, "merged", str(error)) from error
