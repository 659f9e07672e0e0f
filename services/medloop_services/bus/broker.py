"""A real Apache Kafka broker of one's own: one KRaft node on the loopback, gone when its owner is."""

from __future__ import annotations

import atexit
import base64
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from medloop_services.bus import guard
from medloop_services.bus.java import find_java
from medloop_services.bus.kafka_jars import BrokerUnavailable, class_path

HOST = "127.0.0.1"
POLL_S = 0.05
STOP_PATIENCE_S = 20.0
LOG_TAIL_LINES = 12

# Small heap, serial collector, first-tier compiler: half the start time and memory of the defaults.
JAVA_FLAGS = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
    "-XX:MaxDirectMemorySize=64m",
    "-XX:ReservedCodeCacheSize=48m",
    "-Xshare:auto",
)

LOGGING = """\
status=error
appender.file.type=Console
appender.file.name=console
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %-5p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""


class EmbeddedBroker:
    """One broker process with its data in a folder; start it again on the same folder and nothing is lost.

    Args:
        folder: holds the log segments, `broker.log` and the generated configuration.
        port: for clients; 0 picks a free one, kept over restarts of this object.
        controller_port: for itself; likewise.
        properties: of Kafka's own, in the place of those below.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        controller_port: int = 0,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self._own_properties = dict(properties or {})
        self._controller_port = controller_port or free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        self._java: int | None = None

    @property
    def bootstrap(self) -> str:
        """What clients connect to: host:port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The Java process, while it runs."""
        return self._java

    @property
    def log(self) -> Path:
        """Where the broker writes what it has to say."""
        return self.folder / "broker.log"

    def start(self, timeout: float = 90.0) -> None:
        """Start the broker and wait until it answers.

        Args:
            timeout: seconds from start to the first answer.

        Raises:
            BrokerUnavailable: no Java, no jars, the port is taken, or the broker didn't answer in time.
        """
        self._forget()
        for port in (self.port, self._controller_port):
            if answers(port) or not is_free(port):
                raise BrokerUnavailable(
                    f"port {port} is taken by another program; stop it, choose another port, or set "
                    f"MEDLOOP_KAFKA={HOST}:{port} if it is a Kafka you want to use"
                )
        command = [
            str(find_java()),
            *JAVA_FLAGS,
            f"-Dlog4j2.configurationFile={self._write('log4j2.properties', LOGGING)}",
            "-cp",
            class_path(),
            "kafka.Kafka",
            str(self._write("server.properties", self._properties())),
        ]
        self._format()
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        self._java = int(self._guard.stdout.readline() or 0)
        atexit.register(self.stop)
        self._await_answer(time.monotonic() + timeout)

    def alive(self) -> bool:
        """Return whether the broker's process runs."""
        return self._guard is not None and self._guard.poll() is None

    def stop(self) -> None:
        """Stop the broker in good order; does nothing where none runs."""
        if self._guard is None:
            return
        self._guard.terminate()
        try:
            self._guard.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        self._forget()

    def kill(self) -> None:
        """End the broker at once, as a crash would; for fault tests."""
        self._signal(signal.SIGKILL)
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        if self._java and self.alive():
            os.kill(self._java, number)

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.wait(STOP_PATIENCE_S)
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    pipe.close()
        self._guard = self._java = None
        atexit.unregister(self.stop)

    def _await_answer(self, deadline: float) -> None:
        while not answers(self.port):
            if not self.alive():
                raise BrokerUnavailable(
                    f"the broker ended while starting; the end of {self.log}:\n{self._tail()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerUnavailable(
                    f"the broker did not answer in time; the end of {self.log}:\n{self._tail()}"
                )
            time.sleep(POLL_S)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def _format(self) -> None:
        """Do what Kafka's format tool does for a single node, without a second Java process."""
        identity = self.folder / "data" / "meta.properties"
        if not identity.exists():
            lines = ("version=1", f"cluster.id={_new_id()}", "node.id=1", f"directory.id={_new_id()}")
            self._write("data/meta.properties", "\n".join(lines) + "\n")

    def _properties(self) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            # One node: every internal topic has one partition and one replica.
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # A group starts at once, and a killed replica's partitions move on within seconds.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # A node registers again only after the controller has forgotten the last; default 9 s.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 400,
            "controlled.shutdown.enable": "false",
            "message.max.bytes": 16 * 1024 * 1024,
            "replica.fetch.max.bytes": 16 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "num.recovery.threads.per.data.dir": 2,
            "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
            "log.index.size.max.bytes": 1024 * 1024,
        }
        return "".join(f"{name}={value}\n" for name, value in (settings | self._own_properties).items())


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether a port can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Return whether a Kafka broker answers an ApiVersions request on a port of the loopback interface."""
    client = b"medloop"
    request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            connection.settimeout(2)
            return len(connection.recv(64)) > 8
    except OSError:
        return False


def _new_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
