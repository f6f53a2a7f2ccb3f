"""The checker: valid histories pass, and each way of breaking a promise is found in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.account import Account, DeadLetter, Struck
from tests.chaos.checker import Verdict, check
from tests.chaos.ledger import Began, CallerKind, Confirm, Ended, Invoke, Line, Outcome, Stray
from tests.chaos.question import expected

HTTP, CLIENT, PIKA = 1, 2, 3
KINDS: dict[int, CallerKind] = {HTTP: "http", CLIENT: "client", PIKA: "pika"}
Story = dict[int, list[Line]]
"""By caller."""


def asked(caller: int, count: int, mark: str = "", *, at: float = 10.0) -> Invoke:
    number = caller * 1000 + count
    return Invoke(at=at, id=f"c{number}", model="fast", payload=number, deadline=at + 5, mark=mark)


def told(invoke: Invoke, code: str = "ok", *, after: float = 0.1, **extra: Any) -> Outcome:
    answer = expected(invoke.model, invoke.payload) if code == "ok" else ""
    return Outcome(**{"at": invoke.at + after, "id": invoke.id, "code": code, "answer": answer, **extra})


def confirmed(invoke: Invoke) -> Confirm:
    return Confirm(invoke.at + 0.01, invoke.id, "confirmed")


def letter(invoke: Invoke) -> DeadLetter:
    return DeadLetter(invoke.id, invoke.model, "model_process_died")


def judged(story: Story, account: Account | None = None, *faults: Struck) -> Verdict:
    history: list[tuple[CallerKind, Sequence[Line]]] = []
    for caller, lines in story.items():
        began = Began(at=0, unix_s=0, caller=caller, kind=KINDS[caller], pid=1, seed=1)
        history.append((KINDS[caller], [began, *lines, Ended(99, len(lines), 0, 0.0)]))
    return check(history, account or Account(), faults)


def kinds_of(verdict: Verdict) -> set[str]:
    return {violation.kind for violation in verdict.violations}


def killed(gateway: str = "gateway-0", kind: str = "gateway-kill", at: float = 9.9) -> Struck:
    return Struck(1, kind, gateway, at, at + 1, 50, {"processes": 1})


@st.composite
def stories(draw: st.DrawFn) -> tuple[Story, Account]:
    """What may happen to requests of all kinds when nothing is broken."""
    story: Story = {HTTP: [], CLIENT: [], PIKA: []}
    letters: list[DeadLetter] = []
    expired: set[str] = set()
    for caller in (HTTP, CLIENT):
        for count in range(draw(st.integers(0, 4))):
            mark = draw(st.sampled_from(("", "slow", "raise", "crash", "hang")))
            invoke = asked(caller, count, mark, at=draw(st.floats(0, 100)))
            own = {"raise": "failed", "crash": "dead", "hang": "dead"}.get(mark, "ok")
            code = draw(st.sampled_from((own, "expired", "overloaded", "unavailable", "withdrawn")))
            story[caller] += [invoke, told(invoke, code, after=draw(st.floats(0, 5.9)))]
            if code == "dead" or (own == "dead" and draw(st.booleans())):
                letters += [letter(invoke)] * draw(st.integers(1, 2))
    for count in range(draw(st.integers(0, 6))):
        end = draw(st.sampled_from(("answered", "twice", "dead", "silent letter", "expired", "lost", "lost, answered")))
        invoke = asked(PIKA, count, "crash" if end in ("dead", "silent letter") else "")
        story[PIKA].append(invoke)
        story[PIKA].append(Confirm(11, invoke.id, "lost") if end.startswith("lost") else confirmed(invoke))
        if end in ("answered", "twice", "lost, answered", "dead"):
            story[PIKA].append(told(invoke, "dead" if end == "dead" else "ok", after=draw(st.floats(0, 60))))
        if end == "twice":
            story[PIKA].append(told(invoke, after=61, again=True))
        if end in ("dead", "silent letter"):
            letters.append(letter(invoke))
        if end == "expired":
            expired.add(invoke.id)
    return story, Account(letters=tuple(letters), expired=frozenset(expired), left={"ml-model.fast.interactive": 0})


@given(stories())
def test_what_keeps_all_promises_passes(told_story: tuple[Story, Account]) -> None:
    assert judged(*told_story).violations == ()


def _fresh(caller: int, mark: str = "") -> Invoke:
    return asked(caller, 900, mark, at=50)


def _http(*outcomes: Callable[[Invoke], Outcome], mark: str = "") -> Callable[[Story], None]:
    def add(story: Story) -> None:
        for caller in (HTTP, CLIENT):
            invoke = _fresh(caller, mark)
            story[caller] += [invoke, *(outcome(invoke) for outcome in outcomes)]

    return add


def _pika(*lines: Callable[[Invoke], Line], mark: str = "") -> Callable[[Story], None]:
    def add(story: Story) -> None:
        invoke = _fresh(PIKA, mark)
        story[PIKA] += [invoke, *(line(invoke) for line in lines)]

    return add


def _other_answer(invoke: Invoke) -> Outcome:
    return told(invoke, answer=expected(invoke.model, invoke.payload + 1))


def _other_model(invoke: Invoke) -> Outcome:
    return told(invoke, answer=expected("slow", invoke.payload))


def _swapped(story: Story) -> None:
    _http(told)(story)
    _pika(confirmed, told, lambda _: told(_fresh(HTTP)))(story)


BROKEN: dict[str, tuple[str, Callable[[Story], None]]] = {
    "an HTTP caller hears nothing": ("no outcome", _http()),
    "a caller gives up waiting": ("no answer", _http(lambda each: told(each, "none", after=9))),
    "a caller is answered twice": ("two outcomes", _http(told, told)),
    "a caller is told two things": ("two outcomes", _http(told, lambda each: told(each, "expired"))),
    "an answer is late": ("late", _http(lambda each: told(each, after=6.1))),
    "an error is late": ("late", _http(lambda each: told(each, "unavailable", after=6.1))),
    "unknown without a fault": ("unknown", _http(lambda each: told(each, "unknown", via="gateway-0"))),
    "another's answer": ("cross-talk", _http(_other_answer)),
    "another model's answer": ("cross-talk", _http(_other_model)),
    "an unreadable answer": ("cross-talk", _http(lambda each: told(each, answer="unreadable"))),
    "an innocent is told dead": ("wrong outcome", _http(lambda each: told(each, "dead"))),
    "an innocent is told failed": ("wrong outcome", _http(lambda each: told(each, "failed"))),
    "an innocent is told invalid": ("wrong outcome", _http(lambda each: told(each, "invalid"))),
    "an unknown code": ("wrong outcome", _http(lambda each: told(each, "status 502"))),
    "poison is answered": ("wrong outcome", _http(told, mark="crash")),
    "what raises is answered": ("wrong outcome", _http(told, mark="raise")),
    "told dead, and no letter": ("letter missing", _http(lambda each: told(each, "dead"), mark="crash")),
    "a producer's innocent is told failed": ("wrong outcome", _pika(confirmed, lambda each: told(each, "failed"))),
    "confirmed, and nothing more": ("lost", _pika(confirmed)),
    "confirmed poison, and nothing more": ("lost", _pika(confirmed, mark="crash")),
    "a producer takes a second reply for a first": ("two outcomes", _pika(confirmed, told, told)),
    "a producer is told another's answer": ("cross-talk", _pika(confirmed, _other_answer)),
    "the second reply is another's": ("cross-talk", _pika(confirmed, told, lambda e: told(e, answer="?", again=True))),
    "a reply to nobody": ("stray", _pika(confirmed, told, lambda each: Outcome(60, "c999999", "ok"))),
    "a reply to somebody else": ("stray", _swapped),
    "a producer gives up": ("lost", _pika(confirmed, lambda each: told(each, "none", after=20))),
    "bytes that nobody asked for": ("stray", lambda story: story[HTTP].append(Stray(5, "gateway-0", "HTTP/1.1"))),
    "one id for two requests": ("id used twice", lambda story: story[HTTP].extend([_fresh(HTTP), _fresh(HTTP)])),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@settings(max_examples=20)
@given(told_story=stories())
def test_each_broken_promise_is_found_among_those_kept(name: str, told_story: tuple[Story, Account]) -> None:
    story, account = told_story
    kind, add = BROKEN[name]
    add(story)
    assert kind in kinds_of(judged(story, account))


@given(stories())
def test_an_innocent_dead_letter_is_found(told_story: tuple[Story, Account]) -> None:
    story, account = told_story
    invoke = _fresh(PIKA)
    story[PIKA] += [invoke, confirmed(invoke), told(invoke)]
    account = msgspec.structs.replace(account, letters=(*account.letters, letter(invoke)))
    assert kinds_of(judged(story, account)) == {"innocent dead letter"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"letters": (DeadLetter("c7", "fast", "delivery_limit"),)}, "letter of nobody"),
        ({"left": {"ml-model.fast.bulk": 1}}, "left in a queue"),
        ({"left": {"chaos-reply.1": 3}}, "left in a queue"),
        ({"processes": ("python -m modelmq.worker.child",)}, "process left"),
    ],
)
def test_what_is_left_is_found(change: dict[str, Any], kind: str) -> None:
    assert kinds_of(judged({HTTP: []}, Account(**change))) == {kind}


@pytest.mark.parametrize(
    ("fault", "excused"),
    [
        (killed(), True),
        (killed(kind="gateway-stop"), False),
        (killed("gateway-1"), False),
        (killed("http-0", "link-reset"), True),
        (killed("http-0", "link-cut"), True),
        (killed("worker", "link-cut"), False),
        (killed("worker-0", "worker-kill"), False),
        (killed(at=20), False),
        (killed(at=5), False),
    ],
)
def test_unknown_is_only_for_callers_whose_gateway_was_killed_just_then(fault: Struck, excused: bool) -> None:
    invoke = asked(HTTP, 1)
    verdict = judged({HTTP: [invoke, told(invoke, "unknown", via="gateway-0")]}, None, fault)
    assert kinds_of(verdict) == (set() if excused else {"unknown"})


@pytest.mark.parametrize(
    ("fault", "excused"),
    [
        (killed(kind="gateway-stop", at=14), True),
        (killed("http-0", "link-slow", at=14), True),
        (killed("worker-0", "worker-stop", at=14), False),
        (killed("gateway-1", "gateway-stop", at=14), False),
    ],
)
def test_only_who_holds_up_a_gateways_answers_excuses_their_delay(fault: Struck, excused: bool) -> None:
    invoke = asked(HTTP, 1)
    verdict = judged({HTTP: [invoke, told(invoke, "expired", after=6.5, via="gateway-0")]}, None, fault)
    assert kinds_of(verdict) == (set() if excused else {"late"})


def test_a_caller_that_did_not_run_is_late_itself() -> None:
    invoke = asked(HTTP, 1)
    lines = [Began(0, 0, HTTP, "http", 1, 1), invoke, told(invoke, after=6.5), Ended(99, 1, 0, 0.7)]
    assert check([("http", lines)], Account(), ()).violations == ()


@given(stories())
def test_what_is_counted(told_story: tuple[Story, Account]) -> None:
    story, account = told_story
    verdict = judged(story, account)
    lines = [line for lines in story.values() for line in lines]
    assert verdict.asked == sum(isinstance(line, Invoke) for line in lines)
    assert verdict.seen_twice == sum(isinstance(line, Outcome) and line.again for line in lines)
    assert verdict.letters == len(account.letters)
    assert verdict.letters - verdict.letters_twice == len({each.id for each in account.letters})
    assert sum(sum(codes.values()) for codes in verdict.codes.values()) == verdict.asked
