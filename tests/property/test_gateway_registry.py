"""The registry in virtual time: whatever workers say and leave unsaid, what it claims follows from what was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.control import GONE_AFTER_S, ModelReport, WorkerReport
from modelmq.gateway.registry import Registry
from modelmq.metadata import ModelMetadata, Signature, TensorSpec

GRACE_S = 5.0
WORKERS, MODELS, VERSIONS = ("w1", "w2", "w3"), ("a", "b"), ("1", "2")
STATES = st.sampled_from(["loading", "ready", "ready", "failed", "draining"])


@st.composite
def model_reports(draw: st.DrawFn) -> tuple[ModelReport, ...]:
    keys = draw(st.sets(st.tuples(st.sampled_from(MODELS), st.sampled_from(VERSIONS))))
    reports = []
    for name, version in sorted(keys):
        datatype = draw(st.sampled_from(["FP32", "FP32", "FP64"]))
        signature = Signature("python", (TensorSpec("x", datatype, (-1,)),), (), batched=True)
        reports.append(ModelReport(name, version, draw(STATES), metadata=ModelMetadata(name, version, signature)))
    return tuple(reports)


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 1.0, 2.9, 3.1, 6.0]), st.sampled_from([*WORKERS, None]), model_reports()),
    max_size=40,
)


@given(STEPS)
def test_what_it_claims_is_what_was_heard(steps: list[tuple[float, str | None, tuple[ModelReport, ...]]]) -> None:
    registry, now = Registry(GRACE_S, 0.0), 0.0
    heard: dict[str, tuple[float, tuple[ModelReport, ...]]] = {}
    served = dict.fromkeys(MODELS, 0.0)
    told: dict[tuple[str, str], str] = {}
    for after, worker, models in steps:
        now += after
        events = registry.tick(now)
        heard = {name: each for name, each in heard.items() if now - each[0] <= GONE_AFTER_S}
        if worker is not None:
            events += registry.heard(WorkerReport(worker, "default", models), now)
            heard[worker] = (now, models)
            served |= {each.name: now for each in models if each.state in ("ready", "draining")}
        told |= {(event.model, event.version): event.state for event in events}
        _check(registry, heard, served, told, now)


def _check(
    registry: Registry,
    heard: dict[str, tuple[float, tuple[ModelReport, ...]]],
    served: dict[str, float],
    told: dict[tuple[str, str], str],
    now: float,
) -> None:
    alive = [each for _, models in heard.values() for each in models]
    for name in MODELS:
        assert registry.given_up(name, now) == (now - served[name] >= GRACE_S)
        for version in VERSIONS:
            ready = [each for each in alive if (each.name, each.version, each.state) == (name, version, "ready")]
            agree = len({each.metadata for each in ready}) == 1
            view = registry.find(name, version)
            assert (view is not None and view.ready) == bool(ready and agree)
            assert (told.get((name, version)) == "ready") == bool(ready and agree)
            if ready and not agree:
                assert (name, version) in registry.why_not
        default = registry.find(name)
        if default is not None and default.ready:
            assert (name, None) not in registry.why_not or registry.given_up(name, now)
        if any(each.name == name and each.state != "failed" for each in alive):
            sentence = registry.why_not.get((name, None), "")
            assert not sentence or registry.given_up(name, now) or "disagree" in sentence
