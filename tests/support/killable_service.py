"""A service as the process that is deployed, that can be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from medloop_schemas import ReleaseChanged, topic_of
from medloop_services.bus.broker import free_port
from medloop_services.bus.settings import BusSettings

RELEASES = topic_of(ReleaseChanged).name


class Killable:
    """`medloop service NAME` on a broker of its own; killed, it is started again."""

    def __init__(self, name: str, settings: BusSettings, folder: Path, more: Mapping[str, str]) -> None:
        self.name = name
        self.settings = settings
        self.log = folder / f"{name}.log"
        self._port = free_port()
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MEDLOOP_CACHE": str(folder / "cache"),
            "MEDLOOP_KAFKA": settings.kafka,
            "MEDLOOP_ARTIFACTS": settings.artifacts,
            "MEDLOOP_HEALTH_PORT": str(self._port),
            "MEDLOOP_REPLICA": f"{name}-0",
            "MEDLOOP_SESSION_TIMEOUT_MS": "2000",
            "MEDLOOP_BATCH_WAIT_MS": "20",
            "MEDLOOP_GATHER_MS": "20",
            # It is started in every round: what one start has compiled the next ones find.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
            **more,
        }
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "medloop_services.cli", "service", self.name],
                env=self._environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def followed(self) -> int:
        """Return how many releases it has applied since it was started."""
        return self._counted(f'medloop_followed_total{{topic="{RELEASES}"}}')

    def _counted(self, counter: str) -> int:
        lines = (self._get("/metrics") or "").splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(counter))

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None
