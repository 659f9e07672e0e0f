"""Which model version may serve whom: what the releases topic says, folded in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from medloop_schemas import Artifact, ReleaseChanged, ReleaseStage, ServingStage


@dataclass(frozen=True, slots=True)
class SiteReleases:
    """Where one site's releases stand.

    Attributes:
        number: of the last decision applied.
        stable: the release every device is served by, unless it is a canary device.
        canary: the release on trial, if there is one.
    """

    number: int
    stable: ReleaseChanged | None = None
    canary: ReleaseChanged | None = None

    def after(self, change: ReleaseChanged) -> SiteReleases:
        """Return where the site stands once a newer decision is applied."""
        match change.stage:
            case ReleaseStage.STABLE:
                return SiteReleases(change.number, stable=change)
            case ReleaseStage.CANARY:
                return replace(self, number=change.number, canary=change)
            case ReleaseStage.ROLLED_BACK:
                return replace(self, number=change.number, canary=None)
            case ReleaseStage.REJECTED:
                return replace(self, number=change.number)


@dataclass(slots=True)
class ReleaseCatalog:
    """Folds `ReleaseChanged`, each site's decisions by number; a repeat or an older one changes nothing."""

    _sites: dict[str, SiteReleases] = field(default_factory=dict)
    _versions: dict[tuple[str, str], ReleaseChanged] = field(default_factory=dict)
    _packages: dict[str, Artifact] = field(default_factory=dict)

    def apply(self, change: ReleaseChanged) -> None:
        """Apply one decision, unless it or a later one of its site has been applied."""
        site = self._sites.get(change.site_id, SiteReleases(number=-1))
        if change.number <= site.number:
            return
        self._sites[change.site_id] = site.after(change)
        self._versions[change.site_id, change.version] = change
        self._packages[change.version] = change.package

    def serving(self, site_id: str, device_id: str) -> tuple[ReleaseChanged, ServingStage] | None:
        """Return the release that serves a device and why, or None while its site has none."""
        site = self._sites.get(site_id)
        if site is None:
            return None
        if site.canary is not None and device_id in site.canary.devices:
            return site.canary, ServingStage.CANARY
        return None if site.stable is None else (site.stable, ServingStage.STABLE)

    def stable(self, site_id: str) -> ReleaseChanged | None:
        """Return the release that is stable at a site, or None."""
        site = self._sites.get(site_id)
        return None if site is None else site.stable

    def canary(self, site_id: str) -> ReleaseChanged | None:
        """Return the release that is on trial at a site, or None."""
        site = self._sites.get(site_id)
        return None if site is None else site.canary

    def release_of(self, site_id: str, version: str) -> ReleaseChanged | None:
        """Return a site's last decision on a version, or None; other sites may decide otherwise on it."""
        return self._versions.get((site_id, version))

    def package_of(self, version: str) -> Artifact | None:
        """Return where a version's package is, whichever site released it, or None."""
        return self._packages.get(version)

    def sites(self) -> tuple[str, ...]:
        """Return the sites that have a stable release, in alphabetical order."""
        return tuple(sorted(site for site, releases in self._sites.items() if releases.stable is not None))

    def waiting_for(self) -> str | None:
        """Return what is missing before anything can be served, or None."""
        if self.sites():
            return None
        return "no model has been released: start the publisher, which releases the first one"
