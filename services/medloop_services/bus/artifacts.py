"""Model files by content: put one, and anybody with its url and digest fetches exactly the same bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs
from medloop_schemas import Artifact, ConfigurationError, InvalidEvent, TransientError

from medloop_services.bus.cache import cache_directory

CHUNK_BYTES = 1 << 20
NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""A url that names no file, now or later."""


class CorruptArtifact(InvalidEvent):
    """The bytes behind a url are not the ones the artifact names; what refers to it can't be handled."""

    def __init__(self, url: str, expected: str, found: str) -> None:
        super().__init__(
            "artifact",
            "sha256",
            f"{url} should have SHA-256 {expected} but has {found}; publish it again from its source",
        )
        self.url = url
        self.expected = expected
        self.found = found


class StoreAway(TransientError):
    """What keeps files can't be reached now."""


class ArtifactStore:
    """Files named by their SHA-256 behind one fsspec url, and a verified local cache in front of it.

    Args:
        url: fsspec url of a folder: a path, `file://…`, `s3://…` (with its fsspec implementation installed).
        cache: folder for fetched files; by default `artifacts` in the user's cache directory.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        try:
            self._files, self._folder = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"MEDLOOP_ARTIFACTS={url}: {error}") from None
        self._cache = cache or cache_directory() / "artifacts"

    def put(self, path: Path) -> Artifact:
        """Store a file's content and return what names it; storing the same content again changes nothing.

        Raises:
            TransientError: the store can't be reached or is full.
        """
        digest = sha256_of(path)
        name = f"{self._folder.rstrip('/')}/{digest[:2]}/{digest}{path.suffix}"
        arriving = f"{name}.{os.getpid()}.part"
        try:
            self._files.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
            self._files.put_file(str(path), arriving)
            # A reader must never see half a file under its final name.
            self._files.mv(arriving, name)
        except OSError as error:
            raise _away(self._folder, error) from error
        return Artifact(url=self._files.unstrip_protocol(name), sha256=digest, size=path.stat().st_size)

    def fetch(self, artifact: Artifact) -> Path:
        """Return a local file with exactly the artifact's bytes.

        Raises:
            CorruptArtifact: the store answers, but with other bytes, with more than announced or with none.
            TransientError: the store can't be reached, or the cache's disk is full.
        """
        suffix = Path(artifact.url).suffix
        cached = self._cache / artifact.sha256[:2] / f"{artifact.sha256}{suffix}"
        if cached.exists() and sha256_of(cached) == artifact.sha256:
            return cached
        try:
            files, source = url_to_fs(artifact.url)
        except (ValueError, ImportError) as error:
            raise CorruptArtifact(artifact.url, artifact.sha256, f"no content: {error}") from error
        try:
            _download(files, source, artifact, cached)
        except FileNotFoundError as error:
            # A file missing from a store that is there won't come back; a missing store may be mounted again.
            if files.exists(source.rsplit("/", 2)[0]):
                raise CorruptArtifact(artifact.url, artifact.sha256, "no content: it is missing") from error
            raise _away(artifact.url, error) from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise CorruptArtifact(artifact.url, artifact.sha256, f"no content: {error}") from error
            raise _away(artifact.url, error) from error
        return cached

    def holds(self, url: str) -> bool:
        """Return whether a url is one of this store's own."""
        try:
            files, source = url_to_fs(url)
        except (ValueError, ImportError):
            return False
        return bool(files == self._files and source.startswith(f"{self._folder.rstrip('/')}/"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _download(files: fsspec.AbstractFileSystem, source: str, artifact: Artifact, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    arriving = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as local, files.open(source, "rb") as remote:
            while chunk := remote.read(CHUNK_BYTES):
                if local.tell() + len(chunk) > artifact.size:
                    found = f"more than the {artifact.size} bytes announced"
                    raise CorruptArtifact(artifact.url, artifact.sha256, found)
                digest.update(chunk)
                local.write(chunk)
        if digest.hexdigest() != artifact.sha256:
            raise CorruptArtifact(artifact.url, artifact.sha256, digest.hexdigest())
        arriving.replace(target)
    finally:
        arriving.unlink(missing_ok=True)


def _away(place: str, error: OSError) -> TransientError:
    if error.errno == errno.ENOSPC:
        return TransientError(f"no space left while storing {place}; free some space and the work goes on")
    return StoreAway(f"the artifact store {place} can't be reached ({error}); check MEDLOOP_ARTIFACTS")
