"""Settles the requests of one version that nobody waits for any more, and tells how much computing that saved.

Beside the served version, which knows when that is. Knows no process and no batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from modelmq.events import Emit, RequestFailed, WorkDropped
from modelmq.runtimes import ModelSource
from modelmq.worker import answers
from modelmq.worker.intake import log_id
from modelmq.worker.item import WorkItem
from modelmq.worker.outcome import CANCELLED
from modelmq.worker.rate import Cost


class Drops:
    """`cost` is what the version's runs have told."""

    def __init__(self, source: ModelSource, emit: Emit) -> None:
        self.cost = Cost()
        self._source = source
        self._emit = emit

    def settle(self, items: Sequence[WorkItem], *, spent_s: float = 0.0) -> Counter[str]:
        """Withdrawn or out of time, and so not computed, or not to the end; how many of which."""
        outcomes: Counter[str] = Counter()
        if not items:  # as before nearly every batch
            return outcomes
        expired = answers.expired(self._source)
        for item in items:
            answer = CANCELLED if item.withdrawn else expired
            outcomes[answer.outcome.value] += 1
            item.origin.settle(item.delivery, item.reply_to, answer)
            names = self._source.name, self._source.version
            self._emit(RequestFailed(log_id(item.delivery), *names, answer.code, answer.error))
        flush(items)
        self.tell(outcomes, spent_s=spent_s)
        return outcomes

    def tell(self, outcomes: Mapping[str, int], *, spent_s: float = 0.0) -> None:
        """So many requests were not computed, by why; `spent_s` was spent on all of them together."""
        total = sum(outcomes.values())
        for reason, count in outcomes.items():
            saved_s = self.cost.saved_s(count, spent_s * count / total)
            self._emit(WorkDropped(self._source.name, self._source.version, reason, count, saved_s))


def flush(items: Iterable[WorkItem], *, at_once: bool = False) -> None:
    """Send what was held back of the answers to these; `at_once` as in `Origin.flush`."""
    for origin in {id(item.origin): item.origin for item in items}.values():
        origin.flush(at_once=at_once)
