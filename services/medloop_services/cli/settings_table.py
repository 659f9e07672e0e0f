"""Every setting in effect: where it comes from, what it may be, what it means."""

from __future__ import annotations

import os
from importlib import import_module

from pydantic_settings import BaseSettings

from medloop_services.bus.context import load_settings, variable_of

MODULES = (
    "medloop_services.bus.settings",
    "medloop_services.inference.settings",
    "medloop_services.feature_stats.settings",
    "medloop_services.drift_detection.settings",
    "medloop_services.event_aggregation.settings",
    "medloop_services.online_learner.settings",
    "medloop_services.publisher.settings",
    "medloop_services.federation.settings",
    "medloop_services.replay.settings",
    "medloop_services.replay.dataset",
)

SECRET_WORDS = ("secret", "password", "token")


def effective_settings() -> list[dict[str, str]]:
    """Return a row a setting: variable, value, whether it was set, meaning.

    Raises:
        ConfigurationError: a value is wrong; names the variable, the value and the allowed range.
    """
    rows = []
    for name in MODULES:
        module = import_module(name)
        for found in vars(module).values():
            if _is_settings(found) and found.__module__ == name:
                values = load_settings(found)
                rows += [_row(found, field, getattr(values, field)) for field in found.model_fields]
    return rows


def _is_settings(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseSettings) and found is not BaseSettings


def _row(settings: type[BaseSettings], field: str, value: object) -> dict[str, str]:
    variable = variable_of(settings, field)
    masked = any(word in field for word in SECRET_WORDS)
    return {
        "variable": variable,
        "value": "••••" if masked else str(value),
        "set": "yes" if variable in os.environ else "",
        "meaning": settings.model_fields[field].description or "",
    }
