"""What the workers say they serve: per model and version one state, and what speaks against asking it.

Fed by the answers to hello and by time; pure, `now` is an argument. A worker that is silent for three seconds is gone.
A model that nobody serves stays open to requests for a grace time, so that a worker can be restarted under load; one
that failed does not.
Two workers that disagree about a version's tensors close it: which answer a caller got would be chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from modelmq.control import GONE_AFTER_S, ModelReport, WorkerReport
from modelmq.events import ModelSeen
from modelmq.gateway.differences import difference
from modelmq.metadata import ModelMetadata

MOST_WORKERS = 1000
MOST_MODELS = 4096
_SERVING = frozenset({"ready", "draining"})
"""A draining worker still answers what it holds."""
CONFLICT = "conflict"
_FIRST = ("ready", "loading", "draining", "failed")
"""Of several states, none ready with metadata, the one that is told."""
Key = tuple[str, str | None]
T = TypeVar("T")


class VersionView(msgspec.Struct, frozen=True):
    """One version of a model, over all workers. `state` is that of a report, or `gone`, or `conflict`."""

    name: str
    version: str
    state: str
    reason: str = ""
    metadata: ModelMetadata | None = None

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""
        return self.state == "ready"


class Handling(NamedTuple):
    """What a model's owner wants of those who ask it. Of several versions or workers, the most careful holds."""

    idempotent: bool
    """Whether a request that may have run already may be sent again."""
    timeout_s: float | None
    """The deadline of a request that names none, where the owner says one."""


UNKNOWN = Handling(idempotent=False, timeout_s=None)
"""Of a model that no worker has described: it may have side effects."""


class _Worker(msgspec.Struct):
    report: WorkerReport
    heard_s: float


class _Model(msgspec.Struct):
    versions: dict[str, VersionView] = {}
    served_s: float | None = None
    """When somebody last said that it serves the model."""
    served_by: str = ""
    """Who that was."""
    failed: bool = False
    """Whether it failed at all workers that are left, and at the one who served it last."""
    alias: str = ""


class Registry:
    """All workers and models that this gateway knows of."""

    def __init__(self, grace_s: float, now_s: float) -> None:
        self._grace_s = grace_s
        self._listening_since_s = now_s
        self._workers: dict[str, _Worker] = {}
        self._models: dict[str, _Model] = {}
        self._aliases: dict[str, str] = {}
        self.why_not: dict[Key, str] = {}
        """What speaks against asking a model (version None: none in particular); looked up for every request."""
        self.handling: dict[Key, Handling] = {}
        """How to ask a model, looked up in the same way; a model that is not there is UNKNOWN."""
        self.bundle_limit: dict[Key, int] = {}
        """Requests that may share a message; looked up in the same way, and 1 for a model that is not there."""

    def heard(self, report: WorkerReport, now_s: float) -> list[ModelSeen]:
        """A worker's answer; what changed by it."""
        known = self._workers.get(report.worker)
        if known is None and len(self._workers) >= MOST_WORKERS:
            return []
        self._workers[report.worker] = _Worker(report, now_s)
        before = known.report.models if known is not None else ()
        if _said(before) != _said(report.models):
            return self._update({model.name for model in (*before, *report.models)}, now_s)
        self._note_served(report, now_s)
        return []

    def tick(self, now_s: float) -> list[ModelSeen]:
        """Time has passed; what changed by it."""
        silent = [name for name, worker in self._workers.items() if now_s - worker.heard_s > GONE_AFTER_S]
        names = {model.name for name in silent for model in self._workers.pop(name).report.models}
        seen = self._update(names, now_s) if names else []
        self.bundle_limit = self._bundle_limits()
        self._judge(now_s)
        return seen

    def listening(self, now_s: float) -> None:
        """The broker is there (again): silence before this moment says nothing of the workers."""
        self._listening_since_s = now_s
        for worker in self._workers.values():
            worker.heard_s = max(worker.heard_s, now_s)
        self._judge(now_s)

    def given_up(self, name: str, now_s: float) -> bool:
        """Nobody has served this model for the grace time, known or not. Who may be asked serves until it is gone."""
        model = self._models.get(self.name_of(name))
        if model is not None and any(view.state in _SERVING for view in model.versions.values()):
            return False
        served_s = model.served_s if model is not None and model.served_s is not None else self._listening_since_s
        return now_s - max(served_s, self._listening_since_s) >= self._grace_s

    def name_of(self, name: str) -> str:
        """The model's own name, where it has another routing key as well."""
        return self._aliases.get(name, name)

    def versions(self, name: str) -> tuple[str, ...]:
        """All that are known, oldest first."""
        model = self._models.get(self.name_of(name))
        return tuple(sorted(model.versions, key=int)) if model is not None else ()

    def find(self, name: str, version: str | None = None) -> VersionView | None:
        """This version; of none in particular the newest that can be asked, else the newest."""
        model = self._models.get(self.name_of(name))
        if model is None:
            return None
        return _newest(model.versions.values()) if version is None else model.versions.get(version)

    def sentence(self, name: str, version: str | None = None) -> str:
        """Why a model cannot be asked."""
        view = self.find(name, version)
        if view is None:
            return f"No worker serves {_named(name, version)}."
        return view.reason or f"{_sentence_start(name, view.version)} is {view.state}."

    def _update(self, names: set[str], now_s: float) -> list[ModelSeen]:
        seen: list[ModelSeen] = []
        for name in sorted(names):
            if name in self._models or len(self._models) < MOST_MODELS:
                seen += self._update_model(name)
        for worker in self._workers.values():
            self._note_served(worker.report, worker.heard_s)
        self.handling = self._handlings()
        self.bundle_limit = self._bundle_limits()
        self._judge(now_s)
        return seen

    def _update_model(self, name: str) -> list[ModelSeen]:
        said: dict[str, list[tuple[str, ModelReport]]] = {}
        for worker in self._workers.values():
            for report in worker.report.models:
                if report.name == name:
                    said.setdefault(report.version, []).append((worker.report.worker, report))
                    self._note_alias(report)
        model = self._models.setdefault(name, _Model(versions={}))
        states = {(worker, report.state) for reports in said.values() for worker, report in reports}
        model.failed = (model.served_by, "failed") in states and all(state == "failed" for _, state in states)
        before, after = model.versions, {version: _view(name, version, said[version]) for version in said}
        gone = {version: _gone(view) for version, view in before.items() if version not in after}
        # What is known of a model outlives its workers; a version that others outlive is forgotten.
        model.versions = after or gone
        changed = [view for version, view in (gone | after).items() if _state(before.get(version)) != _state(view)]
        return [ModelSeen(name, view.version, _told(view), view.reason) for view in changed]

    def _note_alias(self, report: ModelReport) -> None:
        alias = report.routing_key
        if alias and alias != report.name and len(self._aliases) < MOST_MODELS:
            self._aliases[alias] = report.name

    def _note_served(self, report: WorkerReport, heard_s: float) -> None:
        for each in report.models:
            model = self._models.get(each.name)
            if model is not None and each.state in _SERVING and (model.served_s is None or model.served_s < heard_s):
                model.served_s, model.served_by = heard_s, report.worker

    def _bundle_limits(self) -> dict[Key, int]:
        """The least that any worker takes, for which of them gets a message is the broker's choice.

        What may run once only travels alone: of a bundle that was partly answered all is delivered again.
        """
        found: dict[Key, int] = {}
        for worker in self._workers.values():
            for report in worker.report.models:
                for key in ((report.name, report.version), (report.name, None)):
                    found[key] = min(found.get(key, report.bundle_limit), report.bundle_limit)
        once = {key: 1 for key in found if not self.handling.get(key, UNKNOWN).idempotent}
        return self._with_aliases(found | once)

    def _handlings(self) -> dict[Key, Handling]:
        found: dict[Key, Handling] = {}
        for name, model in self._models.items():
            # What never loads takes no request; what loads may take it in a moment.
            views = [view for view in model.versions.values() if view.metadata or view.state != "failed"]
            found |= {(name, view.version): _handling(view) for view in views}
            newest = _newest(views)
            if newest is not None:
                careful = all(_handling(view).idempotent for view in views)
                found[name, None] = Handling(careful, _handling(newest).timeout_s)
        return self._with_aliases(found)

    def _with_aliases(self, by_key: dict[Key, T]) -> dict[Key, T]:
        for alias, name in self._aliases.items():
            model = self._models.get(name)
            versions: list[str | None] = [None, *(model.versions if model is not None else ())]
            by_key |= {(alias, each): by_key[name, each] for each in versions if (name, each) in by_key}
        return by_key

    def _judge(self, now_s: float) -> None:
        """Anew, because it is looked up far more often than it changes."""
        why_not: dict[Key, str] = {}
        for name, model in self._models.items():
            if self.given_up(name, now_s) or model.failed:  # who waits already may wait for its next try
                versions: list[str | None] = [None, *model.versions]
                why_not |= {(name, version): self.sentence(name, version) for version in versions}
                continue
            why_not |= {(name, view.version): view.reason for view in model.versions.values() if _in_conflict(view)}
            newest = _newest(model.versions.values())
            if newest is not None and _in_conflict(newest):
                why_not[name, None] = newest.reason
        self.why_not = self._with_aliases(why_not)


def _handling(view: VersionView) -> Handling:
    known = view.metadata
    return Handling(known.idempotent, known.timeout_s) if known is not None else UNKNOWN


def _in_conflict(view: VersionView) -> bool:
    return view.state == CONFLICT


def _said(models: tuple[ModelReport, ...]) -> list[tuple[object, ...]]:
    """What matters of a report beside the numbers that change each time."""
    return [(each.name, each.version, each.state, each.reason, each.routing_key, each.metadata) for each in models]


def _state(view: VersionView | None) -> tuple[str, str]:
    return (view.state, view.reason) if view is not None else ("gone", "")


def _newest(views: Iterable[VersionView]) -> VersionView | None:
    """Workers take the newest version that is loaded, whether or not they agree about it."""
    return max(views, key=lambda view: (view.state in ("ready", CONFLICT), int(view.version)), default=None)


def _gone(view: VersionView) -> VersionView:
    reason = f"No worker serves {_named(view.name, view.version)} any more."
    return VersionView(view.name, view.version, "gone", reason, view.metadata)


def _view(name: str, version: str, said: list[tuple[str, ModelReport]]) -> VersionView:
    """One state out of what each worker says; at least one does."""
    said = sorted(said, key=lambda each: each[0])
    ready = [(worker, report.metadata) for worker, report in said if report.state == "ready" and report.metadata]
    if not ready:
        worker, report = min(said, key=lambda each: _FIRST.index(each[1].state))
        told = f": {report.reason}" if report.reason else "."
        reason = f"{_sentence_start(name, version)} is {report.state} at worker {worker}{told}"
        return VersionView(name, version, report.state, reason, _described(said))
    first, metadata = ready[0]
    for other, theirs in ready[1:]:
        what = difference(metadata.signature, theirs.signature)
        if what is not None:
            thing, here, there = what
            reason = (
                f"Workers {first} and {other} disagree about {_named(name, version)}: {thing} is {here} at the first "
                f"and {there} at the second; stop the one that has the wrong model."
            )
            return VersionView(name, version, CONFLICT, reason, metadata)
    return VersionView(name, version, "ready", "", _described(said))


def _described(said: list[tuple[str, ModelReport]]) -> ModelMetadata | None:
    """The first worker's description of those that are there, ready before others; as careful as the most careful."""
    known = [
        report.metadata for _, report in sorted(said, key=lambda each: each[1].state != "ready") if report.metadata
    ]
    if not known:
        return None
    return msgspec.structs.replace(known[0], idempotent=all(each.idempotent for each in known))


def _told(view: VersionView) -> str:
    """To an operator a conflict is a failure."""
    return "failed" if _in_conflict(view) else view.state


def _named(name: str, version: str | None) -> str:
    return f"model {name}" if version is None else f"model {name} version {version}"


def _sentence_start(name: str, version: str | None) -> str:
    return f"Model {_named(name, version).removeprefix('model ')}"
