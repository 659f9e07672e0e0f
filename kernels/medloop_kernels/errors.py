"""The errors of the arithmetic.

KernelError               has a stable `code`; its text says what to do
├── LayoutError           the packed bytes are not what layout.py describes
├── ShapeError            operands do not fit each other, or have the wrong dtype or memory order
├── NonFiniteInput        a NaN or an infinity reached the quantizer
├── InvalidThreads        the number of threads is not one
├── BackendUnavailable    the chosen back end does not exist or cannot run on this machine
└── EnergyUnavailable     this machine doesn't say what energy it uses
"""

from __future__ import annotations


class KernelError(Exception):
    """Base of every error of this package; `code` is stable and machine-readable."""

    code = "kernel"


class LayoutError(KernelError):
    """Packed bytes, or the codes to be packed, break the format in `layout`."""

    code = "layout"


class ShapeError(KernelError):
    """Operands of an operation do not fit each other."""

    code = "shape"


class NonFiniteInput(KernelError):
    """An activation is NaN or infinite, so its int8 codes would be meaningless."""

    code = "non-finite"


class InvalidThreads(KernelError):
    """The setting of the number of threads is out of range or no number."""

    code = "threads"


class BackendUnavailable(KernelError):
    """A back end was asked for that this machine or this installation does not have."""

    code = "backend"


class EnergyUnavailable(KernelError):
    """This machine, or this user's rights on it, give no reading of energy."""

    code = "energy"
