"""What a service is built from: the artifact store and its settings, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medloop_schemas import ConfigurationError
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.health import Health

Settings = TypeVar("Settings", bound=BaseSettings)

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


@dataclass(frozen=True, slots=True)
class Context:
    """Given to every service's `build`.

    Attributes:
        artifacts: where model files are put and fetched.
        overrides: settings that win over the environment, by variable name, such as
            `{"MEDLOOP_DRIFT_DETECTION_WINDOW_IMAGES": 128}`.
        health: where a service says what it alone can know of how it does.
    """

    artifacts: ArtifactStore
    overrides: Mapping[str, Any] = field(default_factory=dict)
    health: Health = field(default_factory=Health)

    def load(self, settings: type[Settings]) -> Settings:
        """Return settings read from the overrides, then the environment, then their defaults.

        Raises:
            ConfigurationError: a value is wrong; names the variable, the value and the allowed range.
        """
        return load_settings(settings, self.overrides)


def load_settings(settings: type[Settings], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return an instance of a settings class; see `Context.load`.

    Raises:
        ConfigurationError: a value is wrong; names the variable, the value and the allowed range.
    """
    chosen = {
        name: (overrides or {})[variable_of(settings, name)]
        for name in settings.model_fields
        if variable_of(settings, name) in (overrides or {})
    }
    try:
        return settings(**chosen)
    except ValidationError as error:
        raise ConfigurationError(_explain(settings, error.errors(include_url=False)[0])) from None
    except SettingsError as error:
        raise ConfigurationError(f"{_unread(settings)}: {error}; a list is JSON, such as [1, 2]") from None


def _unread(settings: type[BaseSettings]) -> str:
    """The variables that are set: one of them is no JSON, and pydantic names only its field."""
    variables = [variable_of(settings, field) for field in settings.model_fields]
    return ", ".join(name for name in variables if name in os.environ)


def variable_of(settings: type[BaseSettings], name: str) -> str:
    """Return the environment variable that sets a field."""
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _explain(settings: type[BaseSettings], error: ErrorDetails) -> str:
    if not error["loc"]:
        return f"{settings.__name__}: {error['msg']}"
    name = str(error["loc"][0])
    found = settings.model_fields.get(name)
    allowed = f"; allowed: {_allowed(found)}" if found else ""
    return f"{variable_of(settings, name)}={error['input']!r}: {error['msg']}{allowed}"


def _allowed(found: FieldInfo) -> str:
    kind = getattr(found.annotation, "__name__", str(found.annotation))
    bounds = [
        f"{sign} {getattr(constraint, bound)}"
        for constraint in found.metadata
        for bound, sign in _BOUNDS.items()
        if getattr(constraint, bound, None) is not None
    ]
    described = f" ({found.description})" if found.description else ""
    return ", ".join([kind, *bounds]) + described
