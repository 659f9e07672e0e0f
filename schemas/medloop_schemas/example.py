"""Example labelled: an image, what was served for it and what the reader said, joined."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from medloop_schemas.event import Event
from medloop_schemas.identity import Identifier, derive_id
from medloop_schemas.image import Frame
from medloop_schemas.label import LONGEST_CLASS_NAME, MAX_CLASSES

HELD_BACK_ONE_IN = 4
"""Every fourth study or so is kept for judging and never trained on."""


def held_back(study_id: str) -> bool:
    """Return whether a study is held back for the publisher; images of one study are never divided."""
    return int(hashlib.sha256(study_id.encode()).hexdigest()[:8], 16) % HELD_BACK_ONE_IN == 0


class ExampleLabelled(Event):
    """A labelled image: what the learner trains on and the publisher judges by."""

    event_type: ClassVar[str] = "medloop.example.labelled.v1"

    image_id: Identifier
    device_id: Identifier
    site_id: Identifier
    study_id: Identifier
    image_sequence: int = Field(ge=0, description="the image's")
    label_sequence: int = Field(ge=0, description="the label's: grows with every example of a device")
    revision: int = Field(ge=1)
    class_index: int = Field(ge=0, lt=MAX_CLASSES)
    class_name: str = Field(min_length=1, max_length=LONGEST_CLASS_NAME)
    predicted_class: int = Field(ge=0, description="what was served")
    model_version: Identifier = Field(description="which version served it")
    frame: Frame

    @property
    def held_back(self) -> bool:
        """Whether this example judges candidates and so is never trained on."""
        return held_back(self.study_id)

    @property
    def event_id(self) -> str:
        """Derived from the image and the revision of its label."""
        return derive_id("example", self.image_id, self.revision)

    @property
    def subject(self) -> str:
        """The image."""
        return self.image_id

    @property
    def key(self) -> str:
        """The site: one learner sees all of a site's examples."""
        return self.site_id
