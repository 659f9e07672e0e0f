"""Runs one command and makes sure that it ends when whoever started it does. Standard library only.

usage: python guard.py COMMAND [ARGUMENT …]

The starter holds the other end of this process's standard input and never writes to it: end of file means
that the starter is gone, however it went (`kill -9` closes its pipes too). The first line of standard output
is the command's process id.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import types

PATIENCE_S = 10.0
POLL_S = 0.2
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent: covers a `kill -9` of the guard itself (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command until it ends, a SIGTERM arrives or standard input closes; return its exit status."""
    # A Ctrl-C is for the starter: it stops its services first and the broker last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=die_with_parent,  # noqa: PLW1509  this process has no threads
    )

    def forward(number: int, _frame: types.FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    print(child.pid, flush=True)
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], POLL_S)
        if readable and not os.read(sys.stdin.fileno(), 1):
            child.terminate()
            try:
                child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
