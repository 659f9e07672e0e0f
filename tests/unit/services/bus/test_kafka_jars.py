from __future__ import annotations

from pathlib import Path

import pytest
from medloop_services.bus import kafka_jars
from medloop_services.bus.broker import EmbeddedBroker, free_port, is_free
from medloop_services.bus.java import java_version
from medloop_services.bus.kafka_jars import KAFKA_VERSION, BrokerUnavailable, class_path, read_lock


def test_server_and_clients_are_pinned_to_one_version() -> None:
    versions = {jar.artifact: jar.version for jar in read_lock() if jar.group == "org.apache.kafka"}
    assert set(versions.values()) == {KAFKA_VERSION}
    assert {"kafka_2.13", "kafka-clients", "kafka-server"} <= versions.keys()
    assert any(jar.artifact.startswith("log4j-slf4j") for jar in read_lock())


def test_no_registry_says_what_was_tried_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> Path:
        raise ConnectionError("network is unreachable")

    monkeypatch.setenv("MEDLOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "_download", unreachable)
    with pytest.raises(BrokerUnavailable) as refused:
        class_path()
    assert "MEDLOOP_KAFKA=host:port" in str(refused.value)
    assert "network is unreachable" in str(refused.value)
    assert "https://" in str(refused.value)
    assert not [each for each in tmp_path.iterdir() if each.suffix not in (".lock", ".part")]


def test_a_missing_java_has_no_version(tmp_path: Path) -> None:
    assert java_version(tmp_path / "java") is None


def test_a_free_port_is_free() -> None:
    assert is_free(free_port())


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BrokerUnavailable, match="is taken by another program"):
            EmbeddedBroker(tmp_path, taken.getsockname()[1]).start()
