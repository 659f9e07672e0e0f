"""The federation that a learner's site belongs to, if any: its name, and the key that signs."""

from __future__ import annotations

from collections.abc import Callable

from medloop_model.federation.signature import load_key
from medloop_schemas import ConfigurationError

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.online_learner.settings import LearnerSettings
from medloop_services.participation import Participation

Membership = Callable[[str], Participation]
"""Site → its part in the federation."""


def membership(settings: LearnerSettings, artifacts: ArtifactStore) -> Membership | None:
    """Return what makes a site's part in the named federation, or None where none is named.

    Raises:
        ConfigurationError: a federation is named and the site's key can't be read.
    """
    if not settings.federation:
        return None
    key_file = settings.federation_key
    named = f"MEDLOOP_ONLINE_LEARNER_FEDERATION={settings.federation}"
    if key_file is None:
        raise ConfigurationError(
            f"{named} needs the site's key: make one with `medloop site-key --out FILE` and "
            "set MEDLOOP_ONLINE_LEARNER_FEDERATION_KEY=FILE"
        )
    try:
        key = load_key(key_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{named} needs the site's key, and MEDLOOP_ONLINE_LEARNER_FEDERATION_KEY={key_file} "
            f"can't be read: {error}"
        ) from error

    def part_of(site_id: str) -> Participation:
        return Participation(settings.federation, site_id, key, artifacts, settings.share_norms)

    return part_of
