"""The broker's jars: a pinned list, downloaded once into the user's cache, every file checked by SHA-256.

The list is exact, so nothing is resolved at run time: left to a resolver, an older kafka-clients ends up
beside a newer server.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import truststore
from jgo.maven import MavenContext, PythonResolver
from medloop_schemas import MedloopError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from medloop_services.bus.cache import cache_directory

KAFKA_VERSION = "4.1.2"
LOCK = Path(__file__).with_name("kafka_jars.lock")
DOWNLOADS_AT_ONCE = 8
TIMEOUT_S = 30


class BrokerUnavailable(MedloopError):
    """The embedded broker can't be had or started; the text says what was tried and what to do instead."""

    code = "broker-unavailable"


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned file: where a Maven registry keeps it and what it must hash to."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Its name in the folder of jars."""
        return f"{self.artifact}-{self.version}.jar"


def read_lock(lock: Path = LOCK) -> tuple[Jar, ...]:
    """Return the jars a lock file lists: a line each of digest, group:artifact:version, bytes."""
    lines = [line.split() for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    return tuple(_jar(*line) for line in lines)


def _jar(digest: str, coordinate: str, size: str) -> Jar:
    group, artifact, version = coordinate.split(":")
    return Jar(group, artifact, version, digest, int(size))


def class_path(lock: Path = LOCK) -> str:
    """Return the class path of a lock's jars, downloading them the first time.

    Two callers at once share one download: the second waits for the first.

    Raises:
        BrokerUnavailable: no registry can be reached, or it serves other bytes than the pinned ones.
    """
    jars = read_lock(lock)
    folder = cache_directory() / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        with _alone(folder):
            if not folder.exists():
                _fill(folder, jars)
    return ":".join(str(folder / jar.file_name) for jar in jars)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, jars: Sequence[Jar]) -> None:
    arriving = folder.with_suffix(".part")
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir()
    # Hospitals inspect TLS: their own certificate authority is in the system's store, not in certifi's.
    truststore.inject_into_ssl()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with (
            Progress(*columns, console=Console(stderr=True)) as progress,
            ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
        ):
            task = progress.add_task(f"Apache Kafka {KAFKA_VERSION}", total=sum(jar.size for jar in jars))

            def advance(count: int) -> None:
                progress.advance(task, count)

            registry = MavenContext(
                resolver=PythonResolver(progress_callback=_reporting(advance)),
                repo_cache=arriving / "registry",
                timeout=TIMEOUT_S,
            )
            list(pool.map(lambda jar: _download(jar, registry, arriving), jars))
    except (OSError, RuntimeError) as error:
        # requests' errors are OSErrors; jgo raises RuntimeError where no registry has the file.
        tried = ", ".join(MavenContext().remote_repos.values())
        raise BrokerUnavailable(
            f"the embedded broker needs {len(jars)} jars of Apache Kafka {KAFKA_VERSION}, once; they can't "
            f"be had from {tried} ({type(error).__name__}: {error}). Connect to the internet, copy {folder} "
            f"from a machine that has it, or set MEDLOOP_KAFKA=host:port to use a cluster you have."
        ) from error
    finally:
        truststore.extract_from_ssl()
        shutil.rmtree(arriving / "registry", ignore_errors=True)
    arriving.rename(folder)


def _reporting(
    advance: Callable[[int], None],
) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    @contextmanager
    def report(_name: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield advance

    return report


def _download(jar: Jar, registry: MavenContext, folder: Path) -> None:
    path = registry.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise BrokerUnavailable(
            f"{jar.file_name} from {', '.join(registry.remote_repos.values())} has SHA-256 {found}, "
            f"not the pinned {jar.sha256}; don't use this registry"
        )
    path.rename(folder / jar.file_name)
