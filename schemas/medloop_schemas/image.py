"""Image acquired: a device has taken an image."""

from __future__ import annotations

import base64
from typing import ClassVar, Literal

from pydantic import AnyUrl, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from medloop_schemas.errors import InvalidEvent
from medloop_schemas.event import Body, Event
from medloop_schemas.identity import Identifier, Sha256, derive_id

MAX_INLINE_BYTES = 512 * 1024
"""A frame up to this size travels in the message; a larger one as a reference."""

MAX_BASE64 = 4 * ((MAX_INLINE_BYTES + 2) // 3)


def _given(*names: str) -> JsonDict:
    return {"required": list(names), "properties": {name: {"type": "string"} for name in names}}


class Frame(Body):
    """Pixels row by row, channels last, one unsigned byte a value: inline, or a reference and its digest.

    Height, width and channels have to be those of the model that serves the site (28×28, grey, for the
    shipped one); more than 524,288 bytes travel by reference.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [_given("data"), _given("url", "sha256")]})

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3] = 1
    data: str | None = Field(
        default=None,
        description="base64 of height·width·channels bytes",
        json_schema_extra={"maxLength": MAX_BASE64},
    )
    url: AnyUrl | None = Field(
        default=None,
        description=(
            "fsspec URL of the same bytes, when not inline; under MEDLOOP_ARTIFACTS a store that is away is "
            "waited for, elsewhere the image is a dead letter then"
        ),
    )
    sha256: Sha256 | None = Field(default=None, description="digest of the bytes behind url")

    @model_validator(mode="after")
    def _one_source(self) -> Frame:
        if (self.data is None) == (self.url is None):
            raise ValueError("exactly one of data and url must be set")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a frame behind a url needs its sha256")
        if self.data is not None:
            expected = self.height * self.width * self.channels
            if expected > MAX_INLINE_BYTES:
                raise ValueError(f"{expected} bytes are too many for a message; send a url and its sha256")
            if len(self.data) != 4 * ((expected + 2) // 3):
                raise ValueError(
                    f"data is not {self.height}×{self.width}×{self.channels} = {expected} bytes of base64"
                )
        return self

    @classmethod
    def inline(cls, pixels: bytes, *, height: int, width: int, channels: Literal[1, 3] = 1) -> Frame:
        """Return a frame that carries its pixels."""
        return cls(
            height=height, width=width, channels=channels, data=base64.b64encode(pixels).decode("ascii")
        )

    def pixels(self) -> bytes:
        """Return the inline pixels, height·width·channels bytes.

        Raises:
            InvalidEvent: the data is not base64, or the frame is a reference.
        """
        if self.data is None:
            raise InvalidEvent("reference", "frame.url", "the frame is a reference and has not been fetched")
        try:
            return base64.b64decode(self.data, validate=True)
        except ValueError as error:  # binascii.Error, or text that is not even ASCII
            raise InvalidEvent("base64", "frame.data", f"not base64: {error}") from None


class ImageAcquired(Event):
    """A device has taken an image. Every identifier is a keyed hash; no patient data travels."""

    event_type: ClassVar[str] = "medloop.image.acquired.v1"

    image_id: Identifier
    device_id: Identifier
    site_id: Identifier = Field(description="one of those that MEDLOOP_PUBLISHER_SITES names")
    study_id: Identifier = Field(description="keyed hash of the study; held-out sets are split by it")
    sequence: int = Field(ge=0, description="counts this device's images, without gaps")
    frame: Frame

    @property
    def event_id(self) -> str:
        """Derived from the image."""
        return derive_id("image", self.image_id)

    @property
    def subject(self) -> str:
        """The image."""
        return self.image_id

    @property
    def key(self) -> str:
        """The device."""
        return self.device_id
