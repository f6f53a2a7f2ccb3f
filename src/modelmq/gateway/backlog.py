"""How long a new request would wait for its model: what is ahead of it, by what the workers can do.

Both from the workers' reports, about once a second. In between, what this gateway sends is added, and what the
workers can do is taken off. Others ask too: of what was ahead at the last report only a part was this gateway's, and so
each request it sends since counts for as many. Where nothing is known, nothing is predicted. Pure; `now_s` of one
monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from modelmq.control import GONE_AFTER_S, LaneReport, ModelReport, WorkerReport
from modelmq.messages import LANES, Lane

MOST_WORKERS = 1000
MOST_MODELS = 4096
BULK_SHARE = 0.05
"""Of its batches a worker gives at least so many to the bulk lane while something waits there."""
_SURE_FROM = 2
"""Requests ahead from which one may begin to believe whose they are."""
_MOST_WEIGHT = 64.0
_BODY_DECAY = 0.9
_SERVING = frozenset({"ready", "draining"})
_EMPTY: dict[Lane, LaneReport] = {}


class QueueLimits(msgspec.Struct, frozen=True):
    """When the broker calls a queue full."""

    messages: int
    bytes: int


class _Said(msgspec.Struct):
    """What one worker said of one model."""

    per_s: float
    """0: it serves the model, and how fast is unknown; below 0: it does not serve it."""
    held: dict[Lane, int]


class _Queue(msgspec.Struct):
    """One lane of a model, over all workers."""

    held: int = 0
    ahead: float = 0.0
    """Requests, when they were last looked at."""
    weight: float = 1.0
    """For how many each request of this gateway counts."""
    ready: int | None = None
    """Messages that waited in the queue at the last report that knew it."""
    sent: float = 0.0
    """Requests since then."""
    body_bytes: float = 0.0
    """The largest lately sent."""


class _Model(msgspec.Struct):
    """One model, over all workers."""

    known_per_s: float = 0.0
    known: int = 0
    unknown: int = 0
    batch: int = 1
    per_s: float = 0.0
    """Of all workers; who has not shown yet what it can do is taken to be like the others. 0: unknown."""
    at_s: float = 0.0
    """When the queues were last looked at."""
    interactive: _Queue = msgspec.field(default_factory=_Queue)
    bulk: _Queue = msgspec.field(default_factory=_Queue)

    def queue(self, lane: Lane) -> _Queue:
        return self.interactive if lane == "interactive" else self.bulk


class Backlogs:
    """What waits for each model, as this gateway sees it."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._workers: dict[str, tuple[float, dict[str, _Said]]] = {}
        self._models: dict[str, _Model] = {}

    def heard(self, report: WorkerReport, own: Callable[[str], int], now_s: float) -> None:
        """A worker's answer. `own` tells how many requests of this gateway wait for a model."""
        known = self._workers.get(report.worker)
        if known is None and len(self._workers) >= MOST_WORKERS:
            return
        lanes: dict[str, dict[Lane, LaneReport]] = {}
        for lane in report.lanes:
            lanes.setdefault(lane.model, {})[lane.lane] = lane
        said: dict[str, _Said] = {}
        by_model = _by_model(report.models)
        for name, versions in by_model.items():
            if name in self._models or len(self._models) < MOST_MODELS:
                held = {lane: each.held for lane, each in lanes.get(name, _EMPTY).items()}
                said[name] = _Said(_per_s(versions), held)
        self._take_back(known)
        self._workers[report.worker] = (now_s, said)
        for name, each in said.items():
            model = self._models.setdefault(name, _Model())
            self._add(model, each, +1)
            model.batch = _batch(by_model[name])
        for name in said:
            self._measure(self._models[name], lanes.get(name, _EMPTY), own(name), now_s)

    def tick(self, now_s: float) -> None:
        """Time has passed: who is silent is gone, and so is what it can do."""
        for worker in [name for name, (heard_s, _) in self._workers.items() if now_s - heard_s > GONE_AFTER_S]:
            self._take_back(self._workers.pop(worker))

    def wait_s(self, name: str, lane: Lane, now_s: float) -> float:
        """Until a request that is sent now would be answered; 0 where nothing is ahead, or nothing is known."""
        model = self._models.get(name)
        if model is None or model.per_s <= 0:
            return 0.0
        self._drain(model, now_s)
        ahead = model.queue(lane).ahead
        # Its own batch takes time as well, and that is full only if there are enough for it.
        ahead += min(ahead, model.batch)
        if lane == "interactive":
            return ahead / _interactive_per_s(model)
        # At best nobody asks interactively any more, and at worst it has its share.
        return min(ahead / (BULK_SHARE * model.per_s), (ahead + model.interactive.ahead) / model.per_s)

    def sent(self, name: str, lane: Lane, body_bytes: int, now_s: float) -> None:
        """This gateway has sent a request."""
        model = self._models.get(name)
        if model is None:
            return
        self._drain(model, now_s)
        queue = model.queue(lane)
        queue.ahead += queue.weight
        queue.sent += queue.weight
        queue.body_bytes = max(queue.body_bytes, body_bytes)

    def may_be_full(self, name: str, lane: Lane) -> bool:
        """Whether a queue that takes nothing is full, as far as is known; else it has another reason not to."""
        model = self._models.get(name)
        queue = model.queue(lane) if model is not None else None
        if queue is None or queue.ready is None:
            return True
        most = queue.ready + queue.sent
        return most >= self._limits.messages or most * queue.body_bytes >= self._limits.bytes

    def _take_back(self, known: tuple[float, dict[str, _Said]] | None) -> None:
        for name, said in known[1].items() if known is not None else ():
            self._add(self._models[name], said, -1)

    def _add(self, model: _Model, said: _Said, sign: int) -> None:
        if said.per_s > 0:
            model.known += sign
            model.known_per_s = model.known_per_s + sign * said.per_s if model.known else 0.0
        elif said.per_s == 0:
            model.unknown += sign
        model.per_s = model.known_per_s * (1 + model.unknown / model.known) if model.known else 0.0
        for lane, held in said.held.items():
            model.queue(lane).held += sign * held

    def _measure(self, model: _Model, lanes: dict[Lane, LaneReport], own: int, now_s: float) -> None:
        """What is ahead is now what was counted, where it was."""
        self._drain(model, now_s)
        for lane in LANES:
            queue, told = model.queue(lane), lanes.get(lane)
            if told is not None and told.ready is None:
                continue
            ready = told.ready or 0 if told is not None else 0
            queue.ready, queue.sent = ready, 0.0
            queue.body_bytes *= _BODY_DECAY
            queue.ahead = float(queue.held)
            if told is not None:
                queue.ahead += ready * max(1.0, told.per_message)
            mine = own if lane == "interactive" else 0
            weight = (queue.ahead + _SURE_FROM) / (mine + _SURE_FROM) if ready else 1.0
            queue.weight = min(max(1.0, weight), _MOST_WEIGHT)

    def _drain(self, model: _Model, now_s: float) -> None:
        """Workers have gone on meanwhile."""
        passed_s = now_s - model.at_s
        if passed_s <= 0:
            return
        model.at_s = now_s
        interactive, bulk = model.interactive, model.bulk
        if interactive.ahead or bulk.ahead:
            bulk_per_s = model.per_s * BULK_SHARE if interactive.ahead else model.per_s
            interactive.ahead = max(0.0, interactive.ahead - _interactive_per_s(model) * passed_s)
            bulk.ahead = max(0.0, bulk.ahead - bulk_per_s * passed_s)


def _interactive_per_s(model: _Model) -> float:
    return model.per_s * (1 - BULK_SHARE) if model.bulk.ahead else model.per_s


def _by_model(reports: Iterable[ModelReport]) -> dict[str, list[ModelReport]]:
    found: dict[str, list[ModelReport]] = {}
    for report in reports:
        found.setdefault(report.name, []).append(report)
    return found


def _per_s(versions: list[ModelReport]) -> float:
    """Of one worker, for the mix of versions that is asked of it; 0: unknown; below 0: it does not serve the model."""
    serving = [each for each in versions if each.state in _SERVING]
    if not serving:
        return -1.0
    asked = sum(each.completed_per_s for each in serving)
    known = [each for each in serving if each.capacity_per_s > 0]
    if asked <= 0:
        return max((each.capacity_per_s for each in known), default=0.0)
    # The version that is used up first is where the others' requests wait as well.
    shares = [(each.capacity_per_s, each.completed_per_s / asked) for each in known]
    return min((capacity / share for capacity, share in shares if share > 0), default=0.0)


def _batch(versions: Iterable[ModelReport]) -> int:
    """The most requests that run together."""
    known = (each.metadata for each in versions if each.metadata is not None)
    return max((each.batch.max_batch_size for each in known if each.signature.batched), default=1)
