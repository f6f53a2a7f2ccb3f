from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelmq.control import ModelReport, WorkerReport
from modelmq.events import ModelSeen
from modelmq.gateway import registry
from modelmq.gateway.registry import Handling, Registry
from modelmq.metadata import ModelMetadata, Signature, TensorSpec

GRACE_S = 5.0


def metadata(name: str, version: str, datatype: str = "FP32") -> ModelMetadata:
    signature = Signature("python", (TensorSpec("x", datatype, (-1,)),), (), batched=True)
    return ModelMetadata(name, version, signature)


def model(
    name: str = "m", version: str = "1", state: Any = "ready", datatype: str = "FP32", **more: Any
) -> ModelReport:
    known = metadata(name, version, datatype) if state != "loading" else None
    return ModelReport(name, version, state, metadata=known, **more)


def report(*models: ModelReport, worker: str = "w1") -> WorkerReport:
    return WorkerReport(worker, "default", models)


@pytest.fixture
def seen() -> Registry:
    """At time 100, a worker serves model m."""
    made = Registry(GRACE_S, 0.0)
    made.heard(report(model()), 100.0)
    return made


def test_a_model_that_becomes_ready_is_told_once() -> None:
    made = Registry(GRACE_S, 0.0)
    assert made.find("m") is None
    assert made.heard(report(model(state="loading")), 1.0) == [
        ModelSeen("m", "1", "loading", "Model m version 1 is loading at worker w1.")
    ]
    assert made.heard(report(model()), 2.0) == [ModelSeen("m", "1", "ready")]
    assert made.heard(report(model(pending=7, completed_per_s=3.5)), 3.0) == []
    view = made.find("m")
    assert view is not None
    assert view.ready
    assert view.metadata == metadata("m", "1")


def test_three_seconds_of_silence_is_gone_but_the_model_stays_open_for_the_grace(seen: Registry) -> None:
    assert seen.tick(103.0) == []
    assert [(event.state, event.version) for event in seen.tick(103.1)] == [("gone", "1")]
    view = seen.find("m")
    assert view is not None
    assert not view.ready
    assert view.metadata is not None
    assert seen.why_not == {}
    assert not seen.given_up("m", 104.9)
    seen.tick(105.0)
    assert seen.given_up("m", 105.0)
    assert seen.why_not == {
        ("m", None): "No worker serves model m version 1 any more.",
        ("m", "1"): "No worker serves model m version 1 any more.",
    }
    assert [event.state for event in seen.heard(report(model(), worker="w2"), 106.0)] == ["ready"]
    assert seen.why_not == {}


@pytest.mark.parametrize("state", ["ready", "draining"])
def test_who_serves_is_not_given_up_though_the_grace_is_shorter_than_its_silence(state: Any) -> None:
    made = Registry(0.5, 0.0)
    made.heard(report(model("m", state=state)), 10.0)
    for now_s in (10.6, 12.9):
        made.tick(now_s)
        assert not made.given_up("m", now_s)
        assert made.why_not == {}
    made.tick(13.1)
    assert made.given_up("m", 13.1)


def test_a_draining_worker_still_serves_and_a_loading_one_does_not(seen: Registry) -> None:
    seen.heard(report(model(state="draining")), 104.0)
    assert not seen.given_up("m", 108.0)
    seen.heard(report(model(state="loading")), 105.0)
    assert seen.given_up("m", 109.5)
    seen.tick(107.9)
    assert seen.find("m") is not None


def test_a_model_never_seen_is_open_for_the_grace_since_we_listen() -> None:
    made = Registry(GRACE_S, 10.0)
    assert not made.given_up("x", 14.9)
    assert made.given_up("x", 15.0)
    made.listening(20.0)
    assert not made.given_up("x", 24.9)
    assert made.sentence("x") == "No worker serves model x."


def test_time_without_a_broker_is_no_silence_of_workers(seen: Registry) -> None:
    seen.listening(200.0)
    assert seen.tick(202.0) == []
    assert not seen.given_up("m", 204.0)
    seen.tick(206.0)
    assert seen.given_up("m", 206.0)


def test_a_model_that_fails_where_it_was_served_is_refused_at_once_until_it_is_back(seen: Registry) -> None:
    seen.heard(report(model(state="loading")), 101.0)
    assert seen.why_not == {}
    seen.heard(report(model(state="failed", reason="It died.")), 101.1)
    assert set(seen.why_not.values()) == {"Model m version 1 is failed at worker w1: It died."}
    assert not seen.given_up("m", 101.1)
    seen.heard(report(model()), 102.0)
    assert seen.why_not == {}


def test_a_failure_beside_a_worker_that_was_just_stopped_is_no_reason_to_refuse(seen: Registry) -> None:
    seen.heard(report(model(state="failed"), worker="w2"), 100.0)
    assert seen.why_not == {}
    seen.tick(103.1)  # w1 is being restarted
    seen.heard(report(model(state="failed"), worker="w2"), 103.2)
    assert seen.why_not == {}
    seen.tick(105.5)
    assert seen.why_not != {}


def test_what_failed_everywhere_is_told_with_the_workers_reason() -> None:
    made = Registry(GRACE_S, 0.0)
    events = made.heard(report(model("Digits", state="failed", reason="no such file.")), 1.0)
    sentence = "Model Digits version 1 is failed at worker w1: no such file."
    assert events == [ModelSeen("Digits", "1", "failed", sentence)]
    assert made.sentence("Digits") == sentence
    made.tick(3.5)
    made.heard(report(model("Digits", state="failed", reason="no such file."), worker="w1"), 4.0)
    made.tick(6.0)
    assert made.why_not["Digits", None] == sentence


def test_workers_that_disagree_close_the_version_until_one_is_gone(seen: Registry) -> None:
    events = seen.heard(report(model(datatype="FP64"), worker="w2"), 101.0)
    sentence = (
        "Workers w1 and w2 disagree about model m version 1: input x is FP32 [-1] at the first and FP64 [-1] at the "
        "second; stop the one that has the wrong model."
    )
    assert events == [ModelSeen("m", "1", "failed", sentence)]
    assert seen.sentence("m") == sentence
    assert seen.why_not == {("m", "1"): sentence, ("m", None): sentence}
    assert [event.state for event in seen.tick(103.5)] == ["ready"]
    assert seen.why_not == {}


def test_a_worker_that_drains_no_longer_counts_in_a_disagreement(seen: Registry) -> None:
    seen.heard(report(model(datatype="FP64"), worker="w2"), 101.0)
    assert [event.state for event in seen.heard(report(model(state="draining")), 101.5)] == ["ready"]


def test_an_older_version_stays_open_beside_a_disputed_one(seen: Registry) -> None:
    seen.heard(report(model(), model(version="2")), 101.0)
    seen.heard(report(model(version="2", datatype="FP64"), worker="w2"), 101.0)
    assert seen.why_not.keys() == {("m", "2"), ("m", None)}  # the newest is what who names none would get


def test_versions_are_ordered_as_numbers_and_the_newest_ready_is_the_default() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(model(version="9"), model(version="10"), model(version="11", state="failed")), 1.0)
    assert made.versions("m") == ("9", "10", "11")
    view = made.find("m")
    assert view is not None
    assert view.version == "10"
    assert made.find("m", "12") is None


def test_a_version_that_is_withdrawn_is_forgotten_while_others_live(seen: Registry) -> None:
    seen.heard(report(model(), model(version="2")), 101.0)
    assert [(event.version, event.state) for event in seen.heard(report(model(version="2")), 102.0)] == [("1", "gone")]
    assert seen.versions("m") == ("2",)


def test_a_second_routing_key_is_the_same_model() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(model("single", routing_key="ml_service")), 1.0)
    assert made.name_of("ml_service") == "single"
    view = made.find("ml_service")
    assert view is not None
    assert view.name == "single"
    assert made.versions("ml_service") == ("1",)
    made.tick(9.0)
    assert made.why_not.keys() == {("single", None), ("single", "1"), ("ml_service", None), ("ml_service", "1")}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_WORKERS", 3)
    monkeypatch.setattr(registry, "MOST_MODELS", 2)
    made = Registry(GRACE_S, 0.0)
    for number in range(10):
        made.heard(report(model(f"m{number}", routing_key=f"a{number}"), worker=f"w{number}"), 1.0)
    assert [made.find(f"m{number}") is not None for number in range(4)] == [True, True, False, False]
    assert [made.name_of(f"a{number}") for number in range(4)] == ["m0", "m1", "a2", "a3"]


def described(version: str = "1", state: Any = "ready", **said: Any) -> ModelReport:
    signature = Signature("python", (), (), batched=False)
    return ModelReport("m", version, state, metadata=ModelMetadata("m", version, signature, **said))


def test_a_model_is_asked_as_its_workers_say_even_when_they_are_gone() -> None:
    made = Registry(GRACE_S, 0.0)
    assert made.handling == {}
    made.heard(report(described(idempotent=False, timeout_s=3.0)), 1.0)
    expected = {("m", None): Handling(False, 3.0), ("m", "1"): Handling(False, 3.0)}
    assert made.handling == expected
    made.tick(100.0)
    assert made.handling == expected


def test_the_most_careful_version_and_worker_hold() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(described(), described("2", timeout_s=2.0)), 1.0)
    assert made.handling["m", None] == Handling(True, 2.0)
    made.heard(report(described(idempotent=False), worker="w2"), 1.0)
    assert made.handling["m", "1"] == Handling(False, None)
    assert made.handling["m", "2"] == Handling(True, 2.0)
    assert made.handling["m", None] == Handling(False, 2.0)


def test_what_may_load_in_a_moment_may_have_side_effects_and_what_never_loads_has_none() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(described(), ModelReport("m", "2", "failed")), 1.0)
    assert made.handling["m", None].idempotent
    made.heard(report(described(), ModelReport("m", "2", "loading")), 2.0)
    assert not made.handling["m", None].idempotent
    assert made.handling["m", "1"].idempotent


def test_a_worker_that_still_loads_does_not_hide_what_another_said() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(described(state="draining")), 1.0)
    made.heard(report(ModelReport("m", "1", "loading"), worker="w2"), 1.0)
    view = made.find("m")
    assert view is not None
    assert view.metadata is not None
    assert made.handling["m", None].idempotent


def test_requests_share_a_message_as_far_as_every_worker_takes_it() -> None:
    made = Registry(GRACE_S, 0.0)
    made.heard(report(model(bundle_limit=30, routing_key="alias")), 1.0)
    assert made.bundle_limit == {(name, version): 30 for name in ("m", "alias") for version in ("1", None)}
    made.heard(report(model(bundle_limit=20), worker="w2"), 1.5)
    assert made.bundle_limit["m", "1"] == 20
    # A version that takes none closes it for requests that name no version: any of them may get those.
    made.heard(report(model(bundle_limit=20), model(version="2"), worker="w2"), 2.0)
    assert (made.bundle_limit["m", "1"], made.bundle_limit["m", "2"], made.bundle_limit["m", None]) == (20, 1, 1)
    # Numbers change with every report; they are looked at with the next tick.
    made.heard(report(model(bundle_limit=25), model(version="2", bundle_limit=9), worker="w2"), 2.5)
    made.tick(2.6)
    assert (made.bundle_limit["m", "1"], made.bundle_limit["m", None]) == (25, 9)
    made.heard(report(model(bundle_limit=12, routing_key="alias")), 2.7)
    made.tick(2.8)
    assert made.bundle_limit["m", "1"] == 12
    made.heard(report(model(bundle_limit=25), model(version="2", bundle_limit=9), worker="w2"), 5.0)
    made.tick(6.0)  # the other is gone
    assert made.bundle_limit["m", "1"] == 25


def test_what_may_run_once_only_travels_alone() -> None:
    made = Registry(GRACE_S, 0.0)
    careful = ModelReport("m", "1", "ready", metadata=msgspec.structs.replace(metadata("m", "1"), idempotent=False))
    made.heard(report(msgspec.structs.replace(careful, bundle_limit=30)), 1.0)
    assert made.bundle_limit["m", "1"] == 1
    made.heard(report(model("n", state="loading", bundle_limit=30), worker="w2"), 1.0)
    assert made.bundle_limit["n", "1"] == 1
