"""The same program on RabbitMQ 4.3, with the models of the page: one is taken out again, then all is destroyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from tests.docs.pages import blocks
from tests.infra.conftest import PAGE
from tests.infra.engine import Program
from tests.infra.steps import DESTROY, NOTHING, SAME, UP, drift, is_clean, told_by_our_cli


@pytest.fixture(scope="module")
def broker(node43: RunningNode) -> RunningNode:
    return node43


@pytest.fixture
def follow(stack: Program) -> Callable[[str], None]:
    """Runs the page's block with this text in it, line by line."""

    def run(text: str) -> None:
        (block,) = [each.text for each in blocks(PAGE) if text in each.text]
        for line in block.splitlines():
            stack.pulumi(*UP) if line == "pulumi up" else stack.sh(line)

    return run


def test_a_stack_from_up_to_destroy(
    stack: Program, vhost: str, admin: Management, broker: RunningNode, follow: Callable[[str], None], tmp_path: Path
) -> None:
    follow('"iris", "versions"')
    stack.pulumi(*UP)
    stack.pulumi("refresh", "--yes")
    stack.pulumi(*SAME)
    assert drift(stack, vhost, admin) == NOTHING
    told = told_by_our_cli(stack, broker, tmp_path)
    assert (told.status, told.output) == (0, "No drift.\n")

    iris = {"ml-model.iris.interactive", "ml-model.iris.bulk", "ml-dead-letter.iris"}
    assert iris <= {queue.name for queue in admin.queues(vhost)}
    follow("ml-dead-letter.iris")
    left = {queue.name for queue in admin.queues(vhost)}
    assert not iris & left
    assert drift(stack, vhost, admin) == NOTHING

    stack.config("allow_delete", sorted({*left, vhost}))
    stack.pulumi(*UP)
    stack.pulumi(*DESTROY)
    is_clean(vhost, admin)
