"""How every Kafka client of medloop reaches the cluster: servers, TLS and who it is, from one place."""

from __future__ import annotations

import ssl
from typing import Any

from medloop_schemas import ConfigurationError

from medloop_services.bus.settings import BusSettings


def client_arguments(settings: BusSettings) -> dict[str, Any]:
    """Return the keyword arguments that any aiokafka consumer, producer or admin client is made with.

    Raises:
        ConfigurationError: a certificate or key can't be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka,
        "security_protocol": settings.kafka_security,
        "ssl_context": tls_context(settings),
    }
    if settings.signs_in and settings.kafka_password is not None:
        arguments |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return arguments


def tls_context(settings: BusSettings) -> ssl.SSLContext | None:
    """Return the TLS context of the settings, or None where the connection is not encrypted.

    The broker's certificate and host name are always checked.

    Raises:
        ConfigurationError: a certificate or key can't be read.
    """
    if not settings.encrypts:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    except OSError as error:
        raise _unreadable("MEDLOOP_KAFKA_CA_FILE", settings.kafka_ca_file, error) from None
    if settings.kafka_cert_file is not None:
        try:
            context.load_cert_chain(settings.kafka_cert_file, settings.kafka_key_file, password="")
        except OSError as error:
            files = f"{settings.kafka_cert_file}, MEDLOOP_KAFKA_KEY_FILE={settings.kafka_key_file}"
            raise _unreadable("MEDLOOP_KAFKA_CERT_FILE", files, error) from None
    return context


def _unreadable(variable: str, value: object, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"{variable}={value}: {error}; a readable PEM file is needed")
