"""The process behind `medloop up`: owns the broker and the services, and restarts what dies."""

from __future__ import annotations

import signal
import sys
import time
import types
from pathlib import Path

from medloop_schemas import MedloopError

from medloop_services.stack import Stack

TICK_S = 0.5


def main(folder: Path) -> int:
    """Run the stack of a folder until SIGTERM; return the exit status."""
    stopping = False

    def stop(_number: int, _frame: types.FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    stack = Stack(folder)
    try:
        stack.start()
        while not stopping:
            for name in stack.restart_dead():
                print(f"{name} had died and was started again", flush=True)
            time.sleep(TICK_S)
    except MedloopError as error:
        print(f"medloop up: {error}", file=sys.stderr)
        return 1
    finally:
        stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
