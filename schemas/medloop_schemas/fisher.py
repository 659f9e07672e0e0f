"""Fisher measured: how much each weight of a released model matters, measured anew."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, Sha256, derive_id
from medloop_schemas.release import Artifact


class FisherMeasured(Event):
    """Fisher information of a model for everybody who adapts it, at whichever site; the newest counts.

    It belongs to one package, not to a site: whoever serves other bytes under that version must refuse it.
    """

    event_type: ClassVar[str] = "medloop.fisher.measured.v1"

    base_version: Identifier = Field(description="the version it was measured on")
    base_sha256: Sha256 = Field(description="of that version's package")
    fisher: Artifact
    images: int = Field(ge=1, description="representative images that were looked at")
    data_sha256: Sha256 = Field(description="of the data set that they are of")
    seed: int = Field(ge=0, description="of their draw")
    command: str = Field(min_length=1, description="makes the same file again")

    @property
    def event_id(self) -> str:
        """Derived from both files: the same measurement, published again, is a repeat."""
        return derive_id("fisher", self.base_sha256, self.fisher.sha256)

    @property
    def subject(self) -> str:
        """The version it was measured on."""
        return self.base_version

    @property
    def key(self) -> str:
        """The version: measurements of one model keep their order."""
        return self.base_version
