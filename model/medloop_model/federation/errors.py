"""What can be wrong with an update that a site sends.

UpdateRefused               has a stable `code`; its text says what to do
├── CorruptUpdate           not an update, cut short, or with a number that is none
├── OversizeUpdate          larger than an update of this model can be
├── StaleBase               trained from another model than the round's
├── UnknownSite             no public key is known of the sender
└── WrongSignature          signed by somebody else, or changed since
A weight of another shape is a `ShapeError`, as everywhere.
"""

from __future__ import annotations

from medloop_model.errors import ModelError


class UpdateRefused(ModelError):
    """Base of every reason not to merge an update."""

    code = "update"


class CorruptUpdate(UpdateRefused):
    """An update that can't be read, or holds a NaN or an infinity."""

    code = "corrupt-update"


class OversizeUpdate(UpdateRefused):
    """More bytes than an update of this model has; it is refused unread.

    Args:
        size: bytes that came.
        most: bytes that there may be.
    """

    code = "oversize-update"

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"the update has {size} bytes; one of this model has at most {most}")
        self.size = size
        self.most = most


class StaleBase(UpdateRefused):
    """Trained from a model that the round doesn't start from; the site has to take the merged model first.

    Args:
        found: digest of the shared weights that it was trained from.
        wanted: digest of those that the round starts from.
    """

    code = "stale-base"

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(
            f"trained from shared weights {found[:12]}, but the round starts from {wanted[:12]}; "
            "release the merged model at the site and train from it"
        )
        self.found = found
        self.wanted = wanted


class UnknownSite(UpdateRefused):
    """A sender whose public key isn't known.

    Args:
        site_id: who it says it is.
    """

    code = "unknown-site"

    def __init__(self, site_id: str) -> None:
        super().__init__(f"no public key is known of site {site_id!r}; add it to MEDLOOP_FEDERATION_SITES")
        self.site_id = site_id


class WrongSignature(UpdateRefused):
    """A signature that isn't the site's, of this content.

    Args:
        site_id: who it should be from.
    """

    code = "wrong-signature"

    def __init__(self, site_id: str) -> None:
        super().__init__(
            f"the signature isn't that of site {site_id!r} on this update; "
            "sign it with the private half of the key in MEDLOOP_FEDERATION_SITES"
        )
        self.site_id = site_id
