"""Every metric of ModelMQ, fed by events.

A subscriber of `fan_out` with a registry of its own. What a caller can invent (model names, versions) is bounded by
`known_models`; children are looked up once and kept. Meaning of each metric: docs/observability.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from modelmq import events
from modelmq.errors import REQUEST_ERRORS
from modelmq.events import Event
from modelmq.observe.answered import Answered
from modelmq.observe.known_models import OTHER, KnownModels

METRICS_CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MODEL = ("model", "version")
_CODES = frozenset({"ok", *REQUEST_ERRORS})
_OUTCOMES = frozenset({"succeeded", "invalid", "failed", "expired", "cancelled", "dead", "retried", "returned"})
_MOST_QUEUES = 1000


class Metrics:
    """The metrics of one service. Call it with each event; `render` gives the text that Prometheus reads."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double every counter's series
        self._registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self._known = KnownModels()
        self._queues: set[str] = set()

        def counter(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"modelmq_{name}", meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"modelmq_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"modelmq_{name}", meaning, labels, registry=registry, buckets=buckets)

        gauge("service", "Always 1; the label says which service this is.", ("service",)).labels(service).set(1)
        self._up = gauge("service_accepting", "1 between start and drain.")
        self._connects = counter("broker_connects", "Connections to RabbitMQ that became ready.")
        self._disconnects = counter("broker_disconnects", "Connections or attempts to connect that ended.")
        self._hand_overs = counter("broker_hand_overs", "Connections that took over after a secret changed.")
        self._hand_over_failures = counter("broker_hand_over_failures", "Changed secrets that could not be used.")
        self._blocked = gauge("broker_blocked", "1 while RabbitMQ takes no publishes.")
        self._unmatched = counter("replies_unmatched", "Replies nobody waited for: late or duplicate.")
        self._in_flight = gauge("requests_in_flight", "Requests the gateway holds now.")

        self._requests = Answered(_SECONDS)
        registry.register(self._requests)

        self._refused = counter("messages_refused", "Messages refused before computing.", ("model", "code"))
        self._outcomes = counter("outcomes", "Requests settled by the worker.", (*_MODEL, "outcome"))
        self._failures = counter("request_failures", "Requests that did not succeed, by code.", (*_MODEL, "code"))
        self._dropped = counter("work_dropped", "Requests not computed: nobody waits.", (*_MODEL, "reason"))
        self._saved_s = counter("compute_saved_seconds", "What they would have cost.", (*_MODEL, "reason"))
        self._runs = counter("model_runs", "Executions of the model; more than batches: re-run in parts.", _MODEL)
        self._batch_s = histogram("batch_duration_seconds", "First run to settled, per batch.", _MODEL, _SECONDS)
        self._batch_rows = histogram("batch_rows", "Rows per batch.", _MODEL, _ROWS)
        self._queued_s = histogram("batch_queued_seconds", "Wait of a batch's oldest request.", _MODEL, _SECONDS)

        self._ready = gauge("model_ready", "1 while this service sees the model ready.", _MODEL)
        self._load_s = gauge("model_load_seconds", "How long the model last took to load.", _MODEL)
        self._load_failures = counter("model_load_failures", "Loads that failed.", _MODEL)
        self._process_ends = counter("model_process_ends", "Model processes that ended unasked.", _MODEL)
        self._queue_missing = counter("queue_missing", "Times a queue was found absent.", ("queue",))

        self._batches: dict[tuple[str, str], tuple[Counter, Histogram, Histogram, Histogram]] = {}
        self._settled: dict[tuple[str, str, str], Counter] = {}
        self._handlers = self._by_event()

    def _by_event(self) -> dict[type[Event], Callable[[Any], None]]:
        return {
            events.RequestAnswered: self._on_answered,
            events.BatchFinished: self._on_batch,
            events.MessageRefused: self._on_refused,
            events.RequestFailed: self._on_failed,
            events.WorkDropped: self._on_dropped,
            events.ModelLoaded: self._on_loaded,
            events.ModelLoadFailed: self._on_load_failed,
            events.ModelProcessEnded: self._on_process_ended,
            events.ModelSeen: self._on_seen,
            events.QueueMissing: self._on_queue_missing,
            events.BrokerBlocked: lambda event: self._blocked.set(event.blocked),
            events.BrokerConnected: lambda _: self._connects.inc(),
            events.BrokerDisconnected: self._on_disconnected,
            events.BrokerHandedOver: lambda _: self._hand_overs.inc(),
            events.BrokerHandOverFailed: lambda _: self._hand_over_failures.inc(),
            events.ReplyUnmatched: lambda _: self._unmatched.inc(),
            events.ServiceStarted: lambda _: self._up.set(1),
            events.ServiceStopping: lambda _: self._up.set(0),
        }

    def __call__(self, event: Event) -> None:
        """Count the event; one of a type that has no metric is passed over."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def render(self) -> bytes:
        """The current values in Prometheus' text format, of METRICS_CONTENT_TYPE."""
        return generate_latest(self._registry)

    def watch_in_flight(self, held: Callable[[], float]) -> None:
        """`held` is asked at every scrape how many requests the service holds."""
        self._in_flight.set_function(held)

    def _on_answered(self, event: events.RequestAnswered) -> None:
        found = self._requests.get((event.model, event.version, event.code))
        if found is None:  # of labels no more than are known, or a caller could fill the memory with invented names
            labels = self._known.labels(event.model, event.version)
            found = self._requests.series(*labels, _one_of(_CODES, event.code))
        found.add(event.duration_s)

    def _on_batch(self, event: events.BatchFinished) -> None:
        key = (event.model, event.version)
        found = self._batches.get(key)
        if found is None:
            self._known.add(*key)
            names = self._known.labels(*key)
            found = (
                self._runs.labels(*names),
                self._batch_s.labels(*names),
                self._batch_rows.labels(*names),
                self._queued_s.labels(*names),
            )
            if names == key:
                self._batches[key] = found
        runs, duration, rows, queued = found
        runs.inc(event.runs)
        duration.observe(event.duration_s)
        rows.observe(event.rows)
        queued.observe(event.queued_s)
        for outcome, count in event.outcomes.items():
            self._outcome(event.model, event.version, outcome).inc(count)

    def _outcome(self, model: str, version: str, outcome: str) -> Counter:
        key = (model, version, outcome)
        found = self._settled.get(key)
        if found is None:
            names = (*self._known.labels(model, version), _one_of(_OUTCOMES, outcome))
            found = self._outcomes.labels(*names)
            if names == key:
                self._settled[key] = found
        return found

    def _on_refused(self, event: events.MessageRefused) -> None:
        model, _ = self._known.labels(event.model, "")
        self._refused.labels(model, _one_of(_CODES, event.code)).inc()

    def _on_failed(self, event: events.RequestFailed) -> None:
        names = self._known.labels(event.model, event.version)
        self._failures.labels(*names, _one_of(_CODES, event.code)).inc()

    def _on_dropped(self, event: events.WorkDropped) -> None:
        names = (*self._known.labels(event.model, event.version), _one_of(_OUTCOMES, event.reason))
        self._dropped.labels(*names).inc(event.requests)
        self._saved_s.labels(*names).inc(event.saved_s)

    def _on_loaded(self, event: events.ModelLoaded) -> None:
        names = self._learnt(event.model, event.version)
        self._ready.labels(*names).set(1)
        self._load_s.labels(*names).set(event.duration_s)

    def _on_load_failed(self, event: events.ModelLoadFailed) -> None:
        names = self._learnt(event.model, event.version)
        self._ready.labels(*names).set(0)
        self._load_failures.labels(*names).inc()

    def _on_process_ended(self, event: events.ModelProcessEnded) -> None:
        names = self._learnt(event.model, event.version)
        self._ready.labels(*names).set(0)
        self._process_ends.labels(*names).inc()

    def _on_seen(self, event: events.ModelSeen) -> None:
        self._ready.labels(*self._learnt(event.model, event.version)).set(event.state == "ready")

    def _on_disconnected(self, _: events.BrokerDisconnected) -> None:
        self._disconnects.inc()
        self._blocked.set(0)  # an alarm belongs to its connection; the next one tells anew

    def _on_queue_missing(self, event: events.QueueMissing) -> None:
        if len(self._queues) < _MOST_QUEUES:
            self._queues.add(event.queue)
        self._queue_missing.labels(_one_of(self._queues, event.queue)).inc()

    def _learnt(self, model: str, version: str) -> tuple[str, str]:
        if model:  # a folder that could not be read at all has no name
            self._known.add(model, version)
        return self._known.labels(model, version)


def _one_of(known: frozenset[str] | set[str], word: str) -> str:
    return word if word in known else OTHER
