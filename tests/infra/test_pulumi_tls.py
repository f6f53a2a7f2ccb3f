"""The management API with TLS: the provider verifies the broker with the authority that the settings name."""

from __future__ import annotations

import pytest

from modelmq.broker.management import Management
from modelmq.broker.node import RunningNode
from tests.infra.engine import Program
from tests.infra.steps import NOTHING, SAME, UP, drift


@pytest.fixture(scope="module")
def checkpoints() -> bool:
    """As users have them."""
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
