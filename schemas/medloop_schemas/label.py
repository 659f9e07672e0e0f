"""Label confirmed: a reader has said what an image shows, some time after it was served."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id

MAX_CLASSES = 1024
LONGEST_CLASS_NAME = 64


class LabelConfirmed(Event):
    """A reader's label of an image; a correction is a new revision of it."""

    event_type: ClassVar[str] = "medloop.label.confirmed.v1"

    image_id: Identifier
    device_id: Identifier
    site_id: Identifier
    sequence: int = Field(ge=0, description="counts this device's labels, without gaps")
    revision: int = Field(default=1, ge=1, description="1 for the first reading, then one more a correction")
    class_index: int = Field(ge=0, lt=MAX_CLASSES)
    class_name: str = Field(min_length=1, max_length=LONGEST_CLASS_NAME)

    @property
    def event_id(self) -> str:
        """Derived from the image and the revision."""
        return derive_id("label", self.image_id, self.revision)

    @property
    def subject(self) -> str:
        """The image."""
        return self.image_id

    @property
    def key(self) -> str:
        """The device."""
        return self.device_id
