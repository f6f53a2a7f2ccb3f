"""The same program on RabbitMQ 4.3, which tells more of what it holds than was declared."""

from __future__ import annotations

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from tests.infra.engine import Program
from tests.infra.steps import DESTROY, NOTHING, QUEUES, SAME, UP, drift, is_clean


@pytest.fixture(scope="module")
def broker(node43: RunningNode) -> RunningNode:
    return node43


def test_a_stack_from_up_to_destroy(stack: Program, vhost: str, admin: Management) -> None:
    stack.config("allow_delete", [*QUEUES, vhost])
    stack.pulumi(*UP)
    stack.pulumi(*SAME)
    stack.pulumi("refresh", "--yes")
    stack.pulumi(*SAME)
    assert drift(stack, vhost, admin) == NOTHING
    stack.pulumi(*DESTROY)
    is_clean(vhost, admin)
