from __future__ import annotations

import pytest

from modelmq.errors import REQUEST_ERRORS, Expired, NotFound, request_error
from modelmq.protocol import error_message
from modelmq.worker.outcome import OUTCOME_OF_CODE, VERDICTS, Outcome, refusal


def test_every_outcome_has_a_verdict_and_every_code_an_outcome() -> None:
    assert set(VERDICTS) == set(Outcome)
    assert set(OUTCOME_OF_CODE) == set(REQUEST_ERRORS)


def test_nothing_is_both_answered_and_given_back() -> None:
    assert not any(verdict.requeue and (verdict.reply or verdict.dead_letter) for verdict in VERDICTS.values())


def test_only_the_dead_are_dead_lettered_and_the_cancelled_hear_nothing() -> None:
    assert [outcome for outcome, verdict in VERDICTS.items() if verdict.dead_letter] == [Outcome.DEAD]
    silent = {outcome for outcome, verdict in VERDICTS.items() if not verdict.reply}
    assert silent == {Outcome.CANCELLED, Outcome.RETRIED, Outcome.RETURNED}


def test_only_what_is_put_off_waits_on_the_broker_and_that_ends_nothing() -> None:
    assert [outcome for outcome, verdict in VERDICTS.items() if verdict.retry] == [Outcome.RETRIED]
    assert not any(VERDICTS[Outcome.RETRIED][:3])


@pytest.mark.parametrize(
    ("error", "outcome"), [(NotFound("No."), Outcome.INVALID), (Expired("Late."), Outcome.EXPIRED)]
)
def test_a_refusal_carries_code_and_sentence(error: NotFound | Expired, outcome: Outcome) -> None:
    answer = refusal(error)
    assert (answer.outcome, answer.code, answer.error) == (outcome, error.code, error.message)
    assert error_message(answer.body) == error.message
    assert type(request_error(answer.code, answer.error)) is type(error)
