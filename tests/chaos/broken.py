"""Short runs with a promise broken on purpose, under the faults that bring it to light: the checker must see it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from tests.chaos.run import Goal, Say, run
from tests.chaos.stage import Shape

_LOAD = Shape(
    http_per_s=60.0,
    client_per_s=100.0,
    pika_per_s=120.0,
    mix=(("fast", "", 90.0), ("slow", "", 6.0), ("frail", "", 3.0), ("fast", "slow", 1.0)),
)


class Broken(msgspec.Struct, frozen=True):
    """A mutation, the faults that bring it to light, and what the checker must then say."""

    name: str
    what: str
    kinds: tuple[str, ...]
    faults: int
    finds: str


ALL = (
    Broken("ack-first", "the ack moved before the reply", ("worker-kill",), 3, "lost"),
    Broken("no-confirm", "the confirm not awaited", ("replies-refused",), 2, "lost"),
    Broken("no-dedup", "the dedup removed", ("link-reset", "worker-kill"), 10, "two outcomes"),
)


class Finding(msgspec.Struct, frozen=True):
    """What became of one mutation."""

    broken: Broken
    violations: dict[str, int]

    @property
    def found(self) -> bool:
        """Whether the checker saw what it must."""
        return self.violations.get(self.broken.finds, 0) > 0

    def row(self) -> tuple[str, str, bool]:
        """As the page tells it."""
        said = ", ".join(f"{count} {kind}" for kind, count in self.violations.items()) or "nothing"
        return self.broken.what, said, self.found


async def find(broken: Broken, folder: Path, seed: int, say: Say) -> Finding:
    """One run, in a folder of its own."""
    place = folder / broken.name
    place.mkdir(mode=0o700)
    say(f"with {broken.what}:")
    in_worker = broken.name != "no-dedup"
    shape = msgspec.structs.replace(
        _LOAD,
        worker_module=f"tests.chaos.mutations {broken.name}" if in_worker else _LOAD.worker_module,
        caller_mutation="" if in_worker else broken.name,
    )
    result = await run(place, shape, Goal(0, broken.faults, 0, broken.kinds, 120.0), seed, say)
    return Finding(broken, dict(Counter(each.kind for each in result.verdict.violations)))
