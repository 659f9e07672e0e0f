"""The errors every member shares.

MedloopError                 has a stable `code`; its text says what to do
├── InvalidEvent             this one event can't be handled: dead letter, the stream goes on
├── TransientError           the broker, a store or the disk is away: wait, keep order, try again
└── ConfigurationError       a setting is wrong: exit 2 before joining a consumer group
"""

from __future__ import annotations


class MedloopError(Exception):
    """Base of every error that medloop raises on purpose; `code` is stable and machine-readable."""

    code = "medloop"


class InvalidEvent(MedloopError):
    """An event that can't be handled.

    Args:
        code: stable machine-readable reason, such as `json`, `missing`, `range`, `shape`.
        field: dotted path of the offending field, empty for the whole message.
        reason: one sentence for a person.
    """

    def __init__(self, code: str, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.code = code
        self.field = field
        self.reason = reason


class TransientError(MedloopError):
    """A dependency is away for a while; nothing is lost, the same work is tried again."""

    code = "transient"


class ConfigurationError(MedloopError):
    """A setting is wrong; the text names the setting, its value and the allowed range."""

    code = "configuration"
