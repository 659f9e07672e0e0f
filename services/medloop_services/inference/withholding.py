"""Which devices are not served: those whose frames are diagnosed to be no pictures, until that is over.

An image of such a device is still run through the model and its prediction sent, marked `withheld`: somebody
has to measure the frames, or nobody would notice when they are pictures again. A withheld prediction is not
served: no display may show it, no report counts it, nothing is learned from its image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medloop_schemas import Diagnosis, DriftDiagnosed
from prometheus_client import Counter, Gauge

from medloop_services.bus.health import Health

WITHHELD = Counter(
    "medloop_inference_withheld_predictions", "Predictions that were not served", ["device_id"]
)
BROKEN = Gauge(
    "medloop_inference_broken_devices", "Devices that are not served: no pictures come", ["site_id"]
)


@dataclass(frozen=True, slots=True)
class SiteFaults:
    """Where one site stands.

    Attributes:
        number: of the last message applied.
        devices: incident → the devices that it keeps from being served.
    """

    number: int = -1
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def after(self, message: DriftDiagnosed) -> SiteFaults:
        """Return where the site stands once a newer message is applied."""
        devices = {
            incident: names for incident, names in self.devices.items() if incident != message.incident
        }
        if message.open and message.diagnosis is Diagnosis.SENSOR_FAULT:
            devices[message.incident] = frozenset(message.onset)
        return SiteFaults(message.number, devices)

    @property
    def broken(self) -> frozenset[str]:
        """The devices that are not served."""
        return frozenset().union(*self.devices.values())


@dataclass(slots=True)
class Withholding:
    """Folds `DriftDiagnosed`, each site's messages by number; a repeat or an older one changes nothing.

    Attributes:
        health: told of each site with a broken device, until it has none.
    """

    health: Health = field(default_factory=Health)
    _sites: dict[str, SiteFaults] = field(default_factory=dict)

    def apply(self, message: DriftDiagnosed) -> None:
        """Apply one message, unless it or a later one of its site has been applied."""
        before = self._sites.get(message.site_id, SiteFaults())
        if message.number <= before.number:
            return
        after = before.after(message)
        self._sites[message.site_id] = after
        BROKEN.labels(message.site_id).set(len(after.broken))
        cause = f"sensors of {message.site_id}"
        if not after.broken:
            self.health.clear(cause)
        elif after.broken != before.broken:
            self.health.degrade(cause, f"{', '.join(sorted(after.broken))} not served: {message.evidence[0]}")

    def withholds(self, site_id: str, device_id: str) -> bool:
        """Return whether a device's predictions are withheld."""
        return device_id in self._sites.get(site_id, SiteFaults()).broken
