"""Judges a run by the ledgers, what is left in the broker, and the faults. Every broken promise is a violation.

What is promised to whom:
- HTTP and the Python client: one outcome for each request, within its deadline and a second. `unknown` only for who
  asked through a gateway that was killed, or over a connection to it that was broken, at that time.
- A producer with confirms, by id: what was confirmed is answered, dead-lettered or expired. It may see a reply twice.
- All: an answer belongs to its request; an innocent request is neither dead-lettered nor answered with an error of the
  model; what was told dead is in the dead-letter queue; nothing else is anywhere, and no process is left.

Pure: values in, a verdict out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tests.chaos import ledger
from tests.chaos.account import Account, Struck
from tests.chaos.ledger import CallerKind, Confirm, Ended, Invoke, Line, Outcome, Stray
from tests.chaos.question import POISON, expected

GRACE_S = 1.0
"""So long after its deadline an answer may come."""
_BREAKS = frozenset({"gateway-kill", "link-cut", "link-reset", "link-stall", "link-slow"})
_DELAYS = frozenset({"gateway-stop", "link-stall", "link-slow"})
_NOBODYS_FAULT = frozenset({ledger.UNKNOWN, ledger.WITHDRAWN, "expired", "overloaded", "unavailable"})
"""Outcomes that every request may have, whatever is asked."""

History = Sequence[tuple[CallerKind, Sequence[Line]]]


class Violation(msgspec.Struct, frozen=True):
    """One broken promise."""

    kind: str
    id: str
    said: str


class Request(msgspec.Struct):
    """All that a ledger tells of one request."""

    kind: CallerKind
    invoke: Invoke
    settled: str = ""
    outcomes: list[Outcome] = []


class Verdict(msgspec.Struct, frozen=True):
    """`violations` is empty when all promises were kept."""

    violations: tuple[Violation, ...]
    asked: int
    accepted: int
    """Confirmed by the broker, or answered by a worker."""
    codes: dict[str, Counter[str]]
    """Outcomes by kind of caller."""
    seen_twice: int
    """Replies that a plain AMQP caller saw again, as the contract allows."""
    letters: int
    letters_twice: int
    """Dead letters beyond the first of their request: a worker that died between the copy and the ack."""
    expired_in_broker: int
    given_up: int = 0
    """Consumers of the producer that heard nothing though answers were due, on a cluster."""


def check(history: History, account: Account, faults: Sequence[Struck]) -> Verdict:
    """The verdict on a run."""
    requests, found = _requests(history)
    windows = _windows(faults)
    letters = Counter(letter.id for letter in account.letters)
    for kind, lines in history:
        pause_s = max((line.longest_pause_s for line in lines if isinstance(line, Ended)), default=0.0)
        if kind != "pika":
            mine = (line.id for line in lines if isinstance(line, Invoke))
            for id_ in mine:
                found += _answered_once(requests[id_], windows, GRACE_S + pause_s)
    for request in requests.values():
        found += _answers_its_question(request)
        if request.kind == "pika":
            found += _accounted_for(request, letters, account.expired)
        if not letters[request.invoke.id] and any(outcome.code == "dead" for outcome in request.outcomes):
            found.append(Violation("letter missing", request.invoke.id, "told dead, but in no dead-letter queue"))
    found += _letters(account, requests)
    found += [Violation("left in a queue", name, f"{count} messages") for name, count in account.left.items() if count]
    found += [Violation("process left", "", command) for command in account.processes]
    given_up = sum(line.given_up for _, lines in history for line in lines if isinstance(line, Ended))
    return msgspec.structs.replace(_verdict(requests, account, letters, found), given_up=given_up)


def _requests(history: History) -> tuple[dict[str, Request], list[Violation]]:
    """By id; and what names no request."""
    requests: dict[str, Request] = {}
    found: list[Violation] = []
    for kind, lines in history:
        for line in lines:
            match line:
                case Invoke():
                    if line.id in requests:
                        found.append(Violation("id used twice", line.id, "the harness is wrong"))
                    requests[line.id] = Request(kind, line, outcomes=[])
                case Confirm(id=id_) if id_ in requests:
                    requests[id_].settled = line.settled
                case Outcome(id=id_) if id_ in requests and requests[id_].kind == kind:
                    requests[id_].outcomes.append(line)
                case Stray():
                    found.append(Violation("stray", line.via, line.said))
                case Confirm() | Outcome():
                    found.append(Violation("stray", line.id, f"{kind} was told of a request it had not made"))
                case _:
                    pass
    return requests, found


class _Windows(msgspec.Struct, frozen=True):
    """By gateway: when connections to it may have broken, when its answers may have been held up."""

    breaks: Mapping[str, Sequence[tuple[float, float]]]
    delays: Mapping[str, Sequence[tuple[float, float]]]


def _windows(faults: Iterable[Struck]) -> _Windows:
    breaks, delays = defaultdict(list), defaultdict(list)
    for fault in faults:
        gateway = fault.victim.replace("http-", "gateway-")
        to_a_caller = fault.kind.startswith("gateway") or fault.victim.startswith("http-")
        if fault.kind in _BREAKS and to_a_caller:
            breaks[gateway].append((fault.at, fault.until + GRACE_S))
        if fault.kind in _DELAYS and to_a_caller:
            delays[gateway].append((fault.at, fault.until + GRACE_S))
    return _Windows(breaks, delays)


def _overlaps(windows: Sequence[tuple[float, float]], start: float, end: float) -> bool:
    return any(start <= until and end >= at for at, until in windows)


def _answered_once(request: Request, windows: _Windows, grace_s: float) -> list[Violation]:
    """For who is promised one answer in time."""
    invoke, outcomes = request.invoke, request.outcomes
    if not outcomes:
        return [Violation("no outcome", invoke.id, f"{request.kind} asked {invoke.model}, and nothing is on record")]
    found = []
    if len(outcomes) > 1:
        codes = ", ".join(outcome.code for outcome in outcomes)
        found.append(Violation("two outcomes", invoke.id, f"{request.kind} was told {codes}"))
    first = outcomes[0]
    broken = _overlaps(windows.breaks.get(first.via, ()), invoke.at, first.at)
    delayed = broken or _overlaps(windows.delays.get(first.via, ()), invoke.at, first.at)
    late_s = first.at - invoke.deadline
    if first.code == ledger.NONE:
        if not delayed:
            found.append(
                Violation("no answer", invoke.id, f"{request.kind} {first.via} heard nothing of {invoke.model}")
            )
    elif late_s > grace_s and not delayed:
        found.append(Violation("late", invoke.id, f"{first.code} came {late_s:.2f} s after the deadline"))
    if first.code == ledger.UNKNOWN and not broken:
        found.append(Violation("unknown", invoke.id, f"{first.via or request.kind} was not killed, nor its connection"))
    return found


def _answers_its_question(request: Request) -> list[Violation]:
    """Whoever asked: what was told fits what was asked."""
    invoke, found = request.invoke, []
    for outcome in request.outcomes:
        if outcome.code == ledger.OK and outcome.answer != expected(invoke.model, invoke.payload):
            found.append(Violation("cross-talk", invoke.id, f"told: {outcome.answer}"))
        elif outcome.code not in _allowed(invoke.mark):
            said = f'marked "{invoke.mark}", told {outcome.code} by {outcome.via or "a worker"}: {outcome.answer}'
            found.append(Violation("wrong outcome", invoke.id, said))
    return found


def _allowed(mark: str) -> frozenset[str]:
    if mark in POISON:
        return _NOBODYS_FAULT | {"dead", ledger.NONE}
    if mark == "raise":
        return _NOBODYS_FAULT | {"failed", ledger.NONE}
    return _NOBODYS_FAULT | {ledger.OK, ledger.NONE}


def _accounted_for(request: Request, letters: Mapping[str, int], expired: frozenset[str]) -> list[Violation]:
    """A producer's: what was confirmed has come to an end that can be seen."""
    id_, found = request.invoke.id, []
    answered = any(outcome.code != ledger.NONE for outcome in request.outcomes)
    if request.settled == "confirmed" and not (answered or letters.get(id_) or id_ in expired):
        said = f"confirmed by the broker, asked of {request.invoke.model}; not answered, dead-lettered or expired"
        found.append(Violation("lost", id_, said))
    firsts = [outcome for outcome in request.outcomes if not outcome.again]
    if len(firsts) > 1:
        found.append(Violation("two outcomes", id_, ", ".join(outcome.code for outcome in firsts)))
    return found


def _letters(account: Account, requests: Mapping[str, Request]) -> list[Violation]:
    found = []
    for letter in account.letters:
        request = requests.get(letter.id)
        if request is None:
            found.append(Violation("letter of nobody", letter.id, f"{letter.model}: {letter.reason}"))
        elif request.invoke.mark not in POISON:
            found.append(Violation("innocent dead letter", letter.id, f"{letter.model}: {letter.reason}"))
    return found


def _verdict(
    requests: Mapping[str, Request], account: Account, letters: Mapping[str, int], found: list[Violation]
) -> Verdict:
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    accepted = seen_twice = 0
    for request in requests.values():
        told = [outcome.code for outcome in request.outcomes if not outcome.again]
        codes[request.kind].update(told or [f"{request.settled or 'no'} and no reply"])
        seen_twice += len(request.outcomes) - len(told)
        accepted += request.settled == "confirmed" or bool({*told} & {ledger.OK, "failed", "dead"})
    return Verdict(
        violations=tuple(found),
        asked=len(requests),
        accepted=accepted,
        codes=dict(codes),
        seen_twice=seen_twice,
        letters=len(account.letters),
        letters_twice=sum(count - 1 for count in letters.values()),
        expired_in_broker=len(account.expired),
    )
