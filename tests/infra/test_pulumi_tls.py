"""The management API with TLS: the provider verifies the broker with the authority that the settings name."""

from __future__ import annotations

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from tests.infra.engine import Program
from tests.infra.steps import DESTROY, NOTHING, QUEUES, SAME, UP, drift, is_clean, passwords


@pytest.fixture(scope="module")
def checkpoints() -> bool:
    """A life as users have it: the state is written after each step, also of a destroy."""
    return True


def test_the_authority_is_what_makes_the_broker_trusted(
    stack: Program, vhost: str, broker: RunningNode, admin: Management
) -> None:
    stack.config("broker.management_url", broker.secure_management_url)
    refused = stack.pulumi("preview", status=None)
    assert refused.status
    assert broker.secure_management_url in refused
    assert "has a certificate that is not trusted" in refused
    assert "Traceback" not in refused

    stack.config("broker.ca_file", broker.ca_file)
    stack.pulumi(*UP)
    assert drift(stack, vhost, admin) == NOTHING
    stack.pulumi(*SAME)
    kept = stack.state()
    assert [word for word in (broker.admin_password, *passwords(stack).values()) if word in kept] == []

    stack.config("allow_delete", [*QUEUES, vhost])
    stack.pulumi(*UP)
    stack.pulumi(*DESTROY)
    is_clean(vhost, admin)
