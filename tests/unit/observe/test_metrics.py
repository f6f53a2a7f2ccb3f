from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelmq import events
from modelmq.observe import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("gateway")


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and label values, model and version first."""
    order = ("model", "version", "service", "queue", "code", "outcome", "reason", "le")
    return {
        (sample.name, *(sample.labels[label] for label in order if label in sample.labels)): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def answered(model: str, version: str = "1", code: str = "ok") -> events.RequestAnswered:
    return events.RequestAnswered("r", model, version, code, 0.02)


def test_answers_are_counted_and_timed(metrics: Metrics) -> None:
    metrics(events.ModelSeen("digits", "1", "ready"))
    for _ in range(3):
        metrics(answered("digits"))
    metrics(answered("digits", code="expired"))
    values = samples(metrics)
    assert values["modelmq_requests_total", "digits", "1", "ok"] == 3
    assert values["modelmq_requests_total", "digits", "1", "expired"] == 1
    assert values["modelmq_request_duration_seconds_count", "digits"] == 4
    assert values["modelmq_request_duration_seconds_bucket", "digits", "0.01"] == 0
    assert values["modelmq_request_duration_seconds_bucket", "digits", "0.025"] == 4
    assert values["modelmq_model_ready", "digits", "1"] == 1


def test_invented_names_cost_no_series_and_no_memory(metrics: Metrics) -> None:
    metrics(events.ModelSeen("digits", "1", "ready"))
    for number in range(300):
        metrics(answered(f"invented-{number}", code="not_found"))
        metrics(answered("digits", str(number + 2), code="not_found"))
        metrics(answered("digits", "1", code=f"code-{number}"))
        metrics(events.MessageRefused("r", f"invented-{number}", "invalid", ""))
        metrics(events.RequestFailed("r", f"invented-{number}", "1", "failed", ""))
    values = samples(metrics)
    assert values["modelmq_requests_total", "other", "", "not_found"] == 300
    assert values["modelmq_requests_total", "digits", "", "not_found"] == 300
    assert values["modelmq_requests_total", "digits", "1", "other"] == 300
    assert values["modelmq_messages_refused_total", "other", "invalid"] == 300
    assert len(values) < 150
    assert len(metrics._requests._series) == 3


def test_a_model_first_unknown_then_seen_gets_its_own_series(metrics: Metrics) -> None:
    metrics(answered("digits"))
    metrics(events.ModelSeen("digits", "1", "ready"))
    metrics(answered("digits"))
    assert samples(metrics)["modelmq_requests_total", "digits", "1", "ok"] == 1


def test_batches(metrics: Metrics) -> None:
    outcomes = {"succeeded": 3, "failed": 1}
    metrics(events.BatchFinished("digits", "1", 4, 9, 5, 0.2, 0.004, outcomes))
    values = samples(metrics)
    assert values["modelmq_model_runs_total", "digits", "1"] == 5
    assert values["modelmq_batch_rows_sum", "digits", "1"] == 9
    assert values["modelmq_batch_duration_seconds_sum", "digits", "1"] == pytest.approx(0.2)
    assert values["modelmq_batch_queued_seconds_sum", "digits", "1"] == pytest.approx(0.004)
    assert values["modelmq_outcomes_total", "digits", "1", "succeeded"] == 3
    assert values["modelmq_outcomes_total", "digits", "1", "failed"] == 1


def test_work_that_nobody_waits_for(metrics: Metrics) -> None:
    metrics(events.ModelLoaded("digits", "1", 0.5))
    metrics(events.WorkDropped("digits", "1", "cancelled", 3, 0.06))
    metrics(events.WorkDropped("digits", "1", "expired", 1, 0.02))
    values = samples(metrics)
    assert values["modelmq_work_dropped_total", "digits", "1", "cancelled"] == 3
    assert values["modelmq_compute_saved_seconds_total", "digits", "1", "cancelled"] == pytest.approx(0.06)
    assert values["modelmq_work_dropped_total", "digits", "1", "expired"] == 1


def test_a_models_life(metrics: Metrics) -> None:
    metrics(events.ModelLoaded("m", "1", 0.5))
    assert samples(metrics)["modelmq_model_ready", "m", "1"] == 1
    metrics(events.ModelProcessEnded("m", "1", "signal 9", 2))
    assert samples(metrics)["modelmq_model_ready", "m", "1"] == 0
    metrics(events.ModelLoadFailed("m", "1", "no such file"))
    metrics(events.ModelLoadFailed("", "", "an unreadable folder"))
    values = samples(metrics)
    assert values["modelmq_model_load_seconds", "m", "1"] == 0.5
    assert values["modelmq_model_process_ends_total", "m", "1"] == 1
    assert values["modelmq_model_load_failures_total", "m", "1"] == 1
    assert values["modelmq_model_load_failures_total", "other", ""] == 1


def test_the_broker(metrics: Metrics) -> None:
    metrics(events.BrokerConnected("gateway", "h:5672"))
    metrics(events.BrokerBlocked("gateway", True, "memory"))
    assert samples(metrics)["modelmq_broker_blocked",] == 1
    metrics(events.BrokerDisconnected("gateway", "reset", 0.5))
    values = samples(metrics)
    assert values["modelmq_broker_blocked",] == 0
    assert values["modelmq_broker_connects_total",] == values["modelmq_broker_disconnects_total",] == 1


def test_the_service(metrics: Metrics) -> None:
    metrics.watch_in_flight(lambda: 7)
    metrics(events.ServiceStarted("gateway"))
    assert samples(metrics)["modelmq_service_accepting",] == 1
    metrics(events.ServiceStopping("gateway"))
    metrics(events.ReplyUnmatched("gateway", "c"))
    metrics(events.QueueMissing("ml-model.digits.bulk", "run modelmq topology apply", 1.0))
    values = samples(metrics)
    assert values["modelmq_service", "gateway"] == 1
    assert values["modelmq_service_accepting",] == 0
    assert values["modelmq_requests_in_flight",] == 7
    assert values["modelmq_replies_unmatched_total",] == 1
    assert values["modelmq_queue_missing_total", "ml-model.digits.bulk"] == 1


def test_two_services_in_one_process_do_not_mix(metrics: Metrics) -> None:
    other = Metrics("worker")
    other(events.ReplyUnmatched("worker", "c"))
    assert samples(metrics)["modelmq_replies_unmatched_total",] == 0


def test_an_event_without_a_metric_is_passed_over(metrics: Metrics) -> None:
    class Odd(events.Event, frozen=True):
        pass

    metrics(Odd())
