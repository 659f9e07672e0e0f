"""The stack on one machine: a broker and one process a service, started, watched and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import aiohttp
import orjson
from medloop_schemas import ConfigurationError, MedloopError

from medloop_services.bus.broker import EmbeddedBroker, free_port
from medloop_services.bus.context import load_settings
from medloop_services.bus.settings import BusSettings

SERVICES = (
    "publisher",
    "inference",
    "feature_stats",
    "drift_detection",
    "event_aggregation",
    "online_learner",
    "federation",
)
"""In the order of starting: the publisher releases the first model that the others wait for."""

STATE_FILE = "stack.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Names this start of the machine."""
STOP_PATIENCE_S = 30.0
HOST = "127.0.0.1"
LOG_TAIL_LINES = 5


class StackFailed(MedloopError):
    """A service keeps ending; names it, its log and the log's last lines."""

    code = "stack-failed"


class Broker(Protocol):
    """What the stack needs of a broker."""

    @property
    def bootstrap(self) -> str:
        """What clients connect to: host:port."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it in good order."""

    def alive(self) -> bool:
        """Return whether it runs."""


@dataclass(frozen=True, slots=True)
class ExistingCluster:
    """A cluster that somebody else runs: MEDLOOP_KAFKA."""

    bootstrap: str

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """It is not ours to stop."""

    def alive(self) -> bool:
        """Services find out themselves and wait."""
        return True


@dataclass(slots=True)
class ServiceProcess:
    """One service's process."""

    name: str
    health_port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = -1
    started: float = 0.0

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Stack:
    """A broker and seven services.

    Args:
        folder: for the broker's data, logs, model files and `stack.json`.
        environment: variables for every service, on top of this process's own.
        broker: the embedded one, unless MEDLOOP_KAFKA names a cluster.
        names: which services.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    broker: Broker | None = None
    names: Sequence[str] = SERVICES
    restart_limit: int = 20
    services: dict[str, ServiceProcess] = field(default_factory=dict)

    @property
    def bootstrap(self) -> str:
        """What clients connect to: host:port."""
        return self._broker().bootstrap

    @property
    def connection(self) -> BusSettings:
        """How a client of this process reaches the broker."""
        return load_settings(BusSettings, {"MEDLOOP_KAFKA": self.bootstrap})

    @property
    def artifacts(self) -> str:
        """The url of the model files."""
        chosen = self.environment.get("MEDLOOP_ARTIFACTS") or os.environ.get("MEDLOOP_ARTIFACTS")
        return chosen or (self.folder.resolve() / "artifacts").as_uri()

    def start(self) -> None:
        """Start the broker and then every service; returns before they are ready.

        Raises:
            BrokerUnavailable: no broker can be started.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._broker().start()
        for name in self.names:
            log = self.folder / f"{name}.log"
            self.services[name] = ServiceProcess(name, free_port(), log)
            self._spawn(self.services[name])
        self._write_state()

    def restart_dead(self) -> list[str]:
        """Start again what has died, and return its names. Call it from the thread that called `start`.

        Raises:
            StackFailed: a service has died too often, or over a wrong setting.
        """
        revived = []
        if not self._broker().alive():
            self._broker().start()
            revived.append("broker")
        for service in self.services.values():
            if not service.alive():
                self._give_up_on(service)
                self._spawn(service)
                revived.append(service.name)
        if revived:
            self._write_state()
        return revived

    def stop(self) -> None:
        """Drain the services, then stop the broker; a service that doesn't end in time is killed."""
        running = [service for service in self.services.values() if service.alive()]
        for service in running:
            _process(service).send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_PATIENCE_S
        for service in running:
            try:
                _process(service).wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _process(service).kill()
                _process(service).wait()
        self._broker().stop()
        found = read_state(self.folder)
        if found is None or found.supervisor == os.getpid():  # another stack's is not ours to remove
            (self.folder / STATE_FILE).unlink(missing_ok=True)

    def _broker(self) -> Broker:
        if self.broker is None:
            cluster = os.environ.get("MEDLOOP_KAFKA")
            security = load_settings(BusSettings).kafka_security
            if not cluster and security != "PLAINTEXT":
                raise ConfigurationError(
                    f"MEDLOOP_KAFKA_SECURITY={security} is for a cluster of your own: "
                    "name it in MEDLOOP_KAFKA"
                )
            self.broker = ExistingCluster(cluster) if cluster else EmbeddedBroker(self.folder / "broker")
        return self.broker

    def _spawn(self, service: ServiceProcess) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            **self.environment,
            "MEDLOOP_KAFKA": self.bootstrap,
            "MEDLOOP_ARTIFACTS": self.artifacts,
            "MEDLOOP_HEALTH_PORT": str(service.health_port),
            # Under the same name a restarted replica has its partitions back at once.
            "MEDLOOP_REPLICA": f"{service.name}-0",
            "MEDLOOP_SUPERVISED": "1",
        }
        with service.log.open("ab") as log:
            service.process = _start(service.name, environment, log)
        service.restarts += 1
        service.started = time.monotonic()

    def _give_up_on(self, service: ServiceProcess) -> None:
        status = _process(service).returncode
        if status == 2 or service.restarts >= self.restart_limit:
            lines = service.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            raise StackFailed(
                f"{service.name} ended with status {status}; the end of {service.log}:\n" + "\n".join(lines)
            )

    def _write_state(self) -> None:
        state = StackState(
            supervisor=os.getpid(),
            began=began(os.getpid()),
            bootstrap=self.bootstrap,
            artifacts=self.artifacts,
            services={
                each.name: RunningService(_process(each).pid, each.health_port, str(each.log), each.restarts)
                for each in self.services.values()
            },
        )
        arriving = self.folder / f".{STATE_FILE}.part"
        arriving.write_bytes(orjson.dumps(asdict(state), option=orjson.OPT_INDENT_2))
        arriving.replace(self.folder / STATE_FILE)


@dataclass(frozen=True, slots=True)
class RunningService:
    """What `stack.json` says of a service."""

    pid: int
    health_port: int
    log: str
    restarts: int


@dataclass(frozen=True, slots=True)
class StackState:
    """What `stack.json` says of a running stack; after a reboot its number may be another process's."""

    supervisor: int
    bootstrap: str
    artifacts: str
    services: dict[str, RunningService]
    began: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How a service does: `ready`, or the reasons why it isn't.

    Attributes:
        degraded: what is less than it should be, though the service is ready.
        notes: what may be worth knowing, such as what a diagnosis waits for.
    """

    name: str
    ready: bool
    reasons: tuple[str, ...]
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_state(folder: Path) -> StackState | None:
    """Return what runs in a folder, or None where nothing does."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    fields: dict[str, Any] = orjson.loads(path.read_bytes())
    state = StackState(
        **{**fields, "services": {name: RunningService(**each) for name, each in fields["services"].items()}}
    )
    same = not state.began or began(state.supervisor) == state.began
    return state if same and _runs(state.supervisor) else None


def began(pid: int) -> str:
    """When a process began, and since which start of the machine; empty where /proc does not say."""
    fields = _stat(pid)
    return f"{BOOT.read_text().strip()}/{fields[19]}" if fields else ""


async def service_statuses(state: StackState) -> list[ServiceStatus]:
    """Ask every service whether it is ready."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return [await _status(session, name, each) for name, each in state.services.items()]


async def _status(session: aiohttp.ClientSession, name: str, service: RunningService) -> ServiceStatus:
    try:
        async with session.get(f"http://{HOST}:{service.health_port}/health/ready") as answer:
            body = await answer.json()
            return ServiceStatus(
                name,
                answer.status == 200,
                *(_sentences(body.get(part)) for part in ("reasons", "degraded", "notes")),
            )
    except (aiohttp.ClientError, TimeoutError):
        return ServiceStatus(
            name, False, ("does not answer yet" if _runs(service.pid) else "is not running",)
        )


def _sentences(by_cause: Any) -> tuple[str, ...]:
    return tuple(map(str, by_cause.values())) if isinstance(by_cause, dict) else ()


def stop_supervisor(folder: Path) -> bool:
    """Stop the stack that runs in a folder and wait until it has; False where none runs.

    Raises:
        ConfigurationError: it does not stop.
    """
    state = read_state(folder)
    if state is None:
        return False
    os.kill(state.supervisor, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_PATIENCE_S
    while _runs(state.supervisor):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"the stack in {folder} (process {state.supervisor}) does not stop; end it with kill -9"
            )
        time.sleep(0.1)
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A zombie is a process that has ended and that nobody has waited for.
    return _stat(pid)[:1] != ["Z"]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the process's state on; none where there is no such file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start(name: str, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "medloop_services.cli", "service", name],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C is for the supervisor, which then drains the services
    )


def _process(service: ServiceProcess) -> subprocess.Popen[bytes]:
    if service.process is None:
        raise StackFailed(f"{service.name} was never started")
    return service.process
