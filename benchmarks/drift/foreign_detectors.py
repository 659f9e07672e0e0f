"""Runs one foreign detector in an environment of its own; imports nothing of medloop.

    python foreign_detectors.py NAME REFERENCE_ROWS COLUMNS PROBABILITY

Reads float64 from standard input: the reference (rows, columns), then messages of one int64 n: 0 forgets
every image, n > 0 is followed by n images (n, columns) and answered by one byte, whether it alarms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

WINDOW = 64
"""Images of a test, as medloop's own windows."""


class Foreign(Protocol):
    """A detector."""

    def __call__(self, rows: FloatArray) -> bool:
        """See images, (n, columns); return whether it alarms."""


class AlibiWindows:
    """alibi-detect's KSDrift, Bonferroni over columns, on one window after the other.

    Args:
        reference: (rows, columns).
        probability: of a false alarm, an image.
    """

    def __init__(self, reference: FloatArray, probability: float) -> None:
        from alibi_detect.cd import KSDrift  # noqa: PLC0415  (each detector has its own library)

        self._test = KSDrift(reference, p_val=probability * WINDOW)
        self._waiting: list[FloatArray] = []

    def __call__(self, rows: FloatArray) -> bool:
        found = False
        for row in rows:
            self._waiting.append(row)
            if len(self._waiting) == WINDOW:
                found = found or bool(self._test.predict(np.stack(self._waiting))["data"]["is_drift"])
                self._waiting = []
        return found


class FrourosSliding:
    """frouros' incremental Kolmogorov-Smirnov test of every column, Bonferroni, read after a micro-batch.

    Args:
        reference: (rows, columns).
        probability: of a false alarm, an image.
    """

    def __init__(self, reference: FloatArray, probability: float) -> None:
        from frouros.detectors.data_drift import IncrementalKSTest  # noqa: PLC0415

        self._probability = probability / reference.shape[1]
        self._tests = [IncrementalKSTest(window_size=WINDOW) for _ in range(reference.shape[1])]
        for test, column in zip(self._tests, reference.T, strict=True):
            test.fit(X=column)

    def __call__(self, rows: FloatArray) -> bool:
        # Every test must see its column: `any` would stop at the first alarm.
        alarms = [self._alarms(test, column) for test, column in zip(self._tests, rows.T, strict=True)]
        return any(alarms)

    def _alarms(self, test: Any, values: FloatArray) -> bool:
        result = None
        for value in values:
            result, _ = test.update(value=value)
        # There is no result before the window is full.
        return result is not None and result.p_value < self._probability * len(values)


DETECTORS: dict[str, Callable[[FloatArray, float], Foreign]] = {
    "alibi KSDrift": AlibiWindows,
    "frouros KS": FrourosSliding,
}


def main() -> None:
    name, rows, columns, probability = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what the libraries print is no answer

    def read(count: int) -> FloatArray:
        return np.frombuffer(stdin.read(8 * count * columns)).reshape(count, columns)

    reference = read(rows)
    detector = DETECTORS[name](reference, probability)
    stdout.write(b"\1")  # it is there
    stdout.flush()
    while header := stdin.read(8):
        count = int.from_bytes(header, "little")
        if count == 0:
            detector = DETECTORS[name](reference, probability)
            continue
        stdout.write(b"\1" if detector(read(count)) else b"\0")
        stdout.flush()


if __name__ == "__main__":
    main()
