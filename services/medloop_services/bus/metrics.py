"""What Prometheus sees of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_BUCKETS_S = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)


class Metrics:
    """The counters of one process, in a registry of its own."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        info = Gauge(
            "medloop_service_info", "1, labelled by the service", ["service"], registry=self.registry
        )
        info.labels(service).set(1)
        self.events = self._counter("events", "events handled", "processor", "topic")
        self.repeats = self._counter("repeats", "events skipped: already in the state", "processor", "topic")
        self.outputs = self._counter("outputs", "events sent", "processor", "topic")
        self.dead_letters = self._counter("dead_letters", "events that can't be handled", "processor", "code")
        self.retries = self._counter("retries", "waits after a transient error", "processor")
        self.table_timeouts = self._counter(
            "table_timeouts", "times that a table was not read back in time and Faust began anew", "processor"
        )
        self.followed = self._counter("followed", "events of followed topics applied", "topic")
        self.degraded = Gauge(
            "medloop_degraded", "things that are less than they should be", registry=self.registry
        )
        self.batch_seconds = Histogram(
            "medloop_batch_seconds",
            "from fetched to committed, s",
            ["processor"],
            buckets=BATCH_BUCKETS_S,
            registry=self.registry,
        )

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"medloop_{name}", description, labels, registry=self.registry)
