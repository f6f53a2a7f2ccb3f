"""What is counted in plain numbers is told as prometheus_client's own counters would tell it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from modelmq.observe.answered import Answered

BOUNDS_S = (0.001, 0.0025, 0.5, 1.0, 60.0)
_ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["digits", 'a "quoted"\nname']),
        st.sampled_from(["1", ""]),
        st.sampled_from(["ok", "expired"]),
        st.sampled_from([*BOUNDS_S, 0.0, 0.75, 1e9]) | st.floats(0, 100),
    ),
    max_size=30,
)


@given(_ANSWERS)
def test_the_page_is_the_same(answers: list[tuple[str, str, str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    answered = Answered(BOUNDS_S)
    ours.register(answered)
    labels = ("model", "version", "code")
    requests = Counter("modelmq_requests", "Requests answered by the gateway.", labels, registry=theirs)
    name, meaning = "modelmq_request_duration_seconds", "Arrival to answer, gateway."
    durations = Histogram(name, meaning, ("model",), registry=theirs, buckets=BOUNDS_S)
    for model, version, code, duration_s in answers:
        answered.series(model, version, code).add(duration_s)
        requests.labels(model, version, code).inc()
        durations.labels(model).observe(duration_s)
    assert _lines(ours) == _lines(theirs)


def _lines(registry: CollectorRegistry) -> list[str]:
    """Without the moment at which each series began."""
    families: list[Metric] = list(registry.collect())
    for family in families:
        family.samples = [each for each in family.samples if not each.name.endswith("_created")]
    kept = CollectorRegistry()
    kept.register(type("Kept", (), {"collect": lambda _: families})())
    return generate_latest(kept).decode().splitlines()
