"""A shorter form of `make chaos --short`: the hardest faults once, always with the same seed, and no promise broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from tests.chaos.ledger import Confirm
from tests.chaos.run import Goal, run, say_to
from tests.chaos.stage import Shape
from tests.chaos.summary import PAGE, write
from tests.chaos.watch import watched

pytestmark = pytest.mark.broker
KINDS = ("worker-kill", "child-kill", "gateway-kill", "broker-kill", "link-reset", "link-stall", "replies-refused")
SEED = 20
SHAPE = Shape(http_per_s=100.0, client_per_s=20.0, pika_per_s=60.0, timeout_s=10.0)
GOAL = Goal(accepted=0, faults=len(KINDS), each=0, kinds=KINDS, longest_s=120.0)


def test_no_promise_is_broken_while_all_parts_fail(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    with watched(folder):
        judged = uvloop.run(run(folder, SHAPE, GOAL, SEED, say_to()))
    said = write(folder, judged)
    assert judged.verdict.violations == (), said
    assert judged.verdict.accepted > 1000, said
    published = [line for _, lines in judged.history for line in lines if isinstance(line, Confirm)]
    assert sum(each.settled == "confirmed" for each in published) > 500, said
    assert judged.verdict.given_up == 0, said
    assert set(judged.evidence.statuses.values()) == {0}, judged.evidence.statuses
    assert "No promise was broken" in (folder / PAGE).read_text()
