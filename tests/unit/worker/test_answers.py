from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelmq.protocol import error_message
from modelmq.runtimes import ModelSettings, ModelSource
from modelmq.worker import answers
from modelmq.worker.executor import Died
from modelmq.worker.item import WorkItem
from modelmq.worker.outcome import Outcome
from modelmq.worker.wire import Raised

SOURCE = ModelSource("m", "2", Path("models/m/2/model.py"), ModelSettings())
OUTPUTS = {"y": np.array([1.5, 2.5]), "z": np.array([7])}


@pytest.fixture
def item(delivery):
    def make(outputs: tuple[str, ...] = (), request_id: str | None = "r") -> WorkItem:
        return WorkItem(
            origin=None,  # type: ignore[arg-type] - an answer is made without looking where it goes
            delivery=delivery(),
            lane="interactive",
            reply_to="",
            request_id=request_id,
            inputs={},
            outputs=outputs,
            rows=2,
            key=None,
            received_s=0.0,
            deadline_s=1.0,
        )

    return make


def test_success_is_the_response_of_the_protocol(item) -> None:
    answer = answers.success(item(("z",)), OUTPUTS, SOURCE, 1000)
    assert (answer.outcome, answer.code, answer.error) == (Outcome.SUCCEEDED, "", "")
    response = json.loads(answer.body)
    assert (response["model_name"], response["model_version"], response["id"]) == ("m", "2", "r")
    assert [(each["name"], each["data"]) for each in response["outputs"]] == [("z", [7])]


def test_an_output_the_model_did_not_give_is_its_failure(item) -> None:
    answer = answers.success(item(("w",)), OUTPUTS, SOURCE, 1000)
    assert (answer.outcome, answer.code) == (Outcome.FAILED, "failed")
    assert 'no output "w"' in error_message(answer.body)


def test_outputs_json_cannot_carry_are_the_models_failure(item) -> None:
    answer = answers.success(item(), {"y": np.array([b"\xff"], object)}, SOURCE, 1000)
    assert answer.outcome is Outcome.FAILED


def test_a_reply_above_the_limit_fails_and_says_both_sizes(item) -> None:
    size = len(answers.success(item(), OUTPUTS, SOURCE, 1000).body)
    assert answers.success(item(), OUTPUTS, SOURCE, size).outcome is Outcome.SUCCEEDED
    answer = answers.success(item(), OUTPUTS, SOURCE, size - 1)
    assert answer.outcome is Outcome.FAILED
    assert answer.error == f"The reply of model m has {size} bytes; the limit is {size - 1}."


@pytest.mark.parametrize("datatype", ["int8", "uint64", "float32", "float64", "bool", "object"])
def test_outputs_that_are_too_large_in_any_case_are_not_written(item, datatype: str) -> None:
    outputs = {"y": np.zeros(1000, datatype) if datatype != "object" else np.full(1000, b"", object)}
    least = 2000
    assert len(answers.success(item(), outputs, SOURCE, 10**6).body) >= least
    answer = answers.success(item(), outputs, SOURCE, least - 1)
    assert answer.error == f"The reply of model m has at least {least} bytes; the limit is {least - 1}."


@pytest.mark.parametrize(("code", "outcome"), [("failed", Outcome.FAILED), ("invalid", Outcome.INVALID)])
def test_what_the_model_raised_is_passed_on(code: str, outcome: Outcome) -> None:
    answer = answers.raised(Raised(code, "Its own words."))
    assert (answer.outcome, answer.code, error_message(answer.body)) == (outcome, code, "Its own words.")


def test_the_dead_are_told_how_often_and_where_they_are() -> None:
    answer = answers.dead(SOURCE, Died("was killed by signal 9"), 3)
    assert (answer.outcome, answer.attempts) == (Outcome.DEAD, 3)
    assert "m was killed by signal 9 each of the 3 times" in answer.error
    assert "dead-letter queue" in answer.error


def test_the_late_and_the_unavailable_are_told_why() -> None:
    assert answers.expired(SOURCE).outcome is Outcome.EXPIRED
    error = answers.unavailable(SOURCE, "it does not load.")
    assert error.retry_after_s == 5.0
    assert error.message == "Model m version 2 is not available: it does not load."


def test_whatever_one_requests_rows_do_to_the_writing_costs_its_neighbours_nothing(item) -> None:
    class Odd(str):
        __slots__ = ()

        def encode(self, *_: str) -> bytes:
            raise RuntimeError("no memory, say")

    outputs = {"y": np.array(["a", "b", Odd("c"), "d", "e", "f"], object)}
    made = answers.successes([item(), item(), item()], outputs, SOURCE, 1000)
    assert [each.outcome for each in made] == [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED]
    assert json.loads(made[2].body)["outputs"][0]["data"] == ["e", "f"]
    assert "no memory, say" in made[1].error
