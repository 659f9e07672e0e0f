"""Derives the coefficients of `kErfAbove` and `kErfBelow` in kernels/medloop_kernels/cpu/lanes.h.

erf(x) ≈ x · P(x²) / Q(x²) on [0, 4], both of degree 5: linear least squares for the coefficients with
the previous denominator as weight (Sanathanan and Koerner, 1963), and more weight where the error is
largest (Lawson, 1961), which levels the error out. Beyond 4, erf is 1 to float32.

    python benchmarks/kernels/fit_erf.py
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

DEGREE = 5
BORDER = 4.0
ROUNDS = 60


def fit(degree: int, border: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients of P and Q, lowest power of x² first."""
    x = (np.cos(np.linspace(0, np.pi, 4001)[:-1]) + 1) / 2 * border
    erf = np.array([math.erf(value) for value in x])
    powers = (x / border)[:, None] ** (2 * np.arange(degree + 1))
    denominator, emphasis = np.ones_like(x), np.ones_like(x)
    for _ in range(ROUNDS):
        weight = emphasis / np.abs(denominator)
        columns = np.hstack([x[:, None] * powers, -erf[:, None] * powers[:, 1:]])
        solution = np.linalg.lstsq(columns * weight[:, None], erf * weight, rcond=None)[0]
        above, below = solution[: degree + 1], np.append(1.0, solution[degree + 1 :])
        denominator = powers @ below
        error = np.abs(x * (powers @ above) / denominator - erf)
        emphasis *= (0.2 + error / error.max()) ** 0.3
        emphasis /= emphasis.max()
    return above / border ** (2 * np.arange(degree + 1)), below / border ** (2 * np.arange(degree + 1))


def largest_float32_error(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """Largest error of the approximation as the kernel computes it."""
    x = np.linspace(-BORDER, BORDER, 200_001, dtype=np.float32)
    squared = x * x
    value = x * polynomial.polyval(squared, above.astype(np.float32))
    value /= polynomial.polyval(squared, below.astype(np.float32))
    return float(np.abs(value - np.array([math.erf(point) for point in x])).max())


if __name__ == "__main__":
    numerator, denominator = fit(DEGREE, BORDER)
    print("above:", *(f"{value:.8e}" for value in numerator.astype(np.float32)[::-1]))
    print("below:", *(f"{value:.8e}" for value in denominator.astype(np.float32)[::-1]))
    print(f"largest error in float32: {largest_float32_error(numerator, denominator):.1e}")
