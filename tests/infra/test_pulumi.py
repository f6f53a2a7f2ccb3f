"""One stack from `pulumi up` to `pulumi destroy`. The tests stand in its order, and each leaves it as it found it."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest

from modelmq.amqp import connect, options_from_url
from modelmq.broker.management import Management
from modelmq.broker.management_values import PermissionInfo, PolicyInfo
from modelmq.broker.node import RunningNode
from modelmq.generations import next_user
from modelmq.topology_names import user_name
from tests.docs.pages import blocks
from tests.infra.conftest import PAGE
from tests.infra.engine import PASSPHRASE, Program
from tests.infra.steps import (
    DESTROY,
    NOTHING,
    QUEUE,
    QUEUES,
    SAME,
    UP,
    changed,
    drift,
    is_clean,
    policy,
    publish,
    take,
    told_by_our_cli,
    updated,
)


@pytest.fixture(scope="module")
def up(stack: Program) -> Program:
    """The stack after `pulumi up`."""
    done = stack.pulumi("up", "--yes")
    assert re.search(r"\+ \d+ created\n", done.output), done.output
    return stack


def test_a_second_preview_expects_no_changes(up: Program) -> None:
    up.pulumi(*SAME)
    up.pulumi(*SAME)


def test_nothing_comes_back_from_the_broker_in_another_form(up: Program) -> None:
    up.pulumi("refresh", "--yes")
    up.pulumi(*SAME)


def test_our_own_plan_finds_nothing_to_do(up: Program, vhost: str, admin: Management) -> None:
    assert drift(up, vhost, admin) == NOTHING


def test_our_command_finds_no_drift_and_what_others_do(
    up: Program, vhost: str, admin: Management, broker: RunningNode, tmp_path: Path
) -> None:
    told = told_by_our_cli(up, broker, tmp_path / "before")
    assert (told.status, told.output) == (0, "No drift.\n")
    admin.put_permission(vhost, PermissionInfo(f"ml-gateway.{vhost.removeprefix('ml-')}", "", ".*", ""))
    told = told_by_our_cli(up, broker, tmp_path / "after")
    assert told.status == 2
    assert "ml-gateway" in told
    up.pulumi(*UP, "--refresh")


def test_secrets_are_in_config_and_state_but_not_to_be_read(up: Program, broker: RunningNode) -> None:
    kept = up.state() + (up.path / "Pulumi.dev.yaml").read_text()
    words = [word for text in up.outputs()["amqp_urls"].values() for word in re.findall(r":([^:@/]+)@", text)]
    assert len(words) == 4
    assert "v1:" in kept
    assert [word for word in (*words, broker.admin_password, PASSPHRASE) if word in kept] == []


def test_the_names_are_those_of_the_original_program(up: Program, vhost: str) -> None:
    outputs = up.outputs()
    told = {key: outputs[key] for key in ("exchange_name", "queue_name", "routing_key", "vhost")}
    assert told == {
        "exchange_name": "ml-model-exchange",
        "queue_name": QUEUE,
        "routing_key": "ml_service",
        "vhost": vhost,
    }
    assert outputs["user_name"] == user_name("worker", vhost.removeprefix("ml-"))


def test_the_documented_lines_start_a_service_that_connects(up: Program) -> None:
    save, start = (block.text for block in blocks(PAGE) if "gateway.env" in block.text)
    up.sh(save)
    assert (up.path / "gateway.env").stat().st_mode & 0o777 == 0o600
    # As on the page, on a port of its own.
    service = subprocess.Popen(
        ["bash", "-c", start],
        cwd=up.path,
        env=up.variables | {"MODELMQ_GATEWAY_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Whoever waits for its lines must not wait for ever.
    late = threading.Timer(60, service.kill)
    late.start()
    try:
        assert service.stdout
        said = next((line for line in service.stdout if "BrokerConnected" in line or "error" in line), "")
    finally:
        service.terminate()
        service.communicate(timeout=60)
        late.cancel()
    assert "BrokerConnected" in said


async def test_an_address_is_good_for_any_client(up: Program) -> None:
    connection = await connect(options_from_url(up.outputs()["amqp_urls"]["client"], name="test"))
    await connection.close()


def test_a_policy_changes_in_place(up: Program, vhost: str, admin: Management) -> None:
    with changed(up, "topology.max_length", 500):
        done = up.pulumi(*UP)
        assert updated(done) == {"Policy ml-bulk", "Policy ml-interactive"}
        assert policy(admin, vhost, "ml-interactive").definition["max-length"] == 500
        assert drift(up, vhost, admin) == NOTHING
    assert updated(up.pulumi(*UP)) == {"Policy ml-bulk", "Policy ml-interactive"}


def test_a_second_user_comes_and_the_first_goes(up: Program, vhost: str, admin: Management) -> None:
    first = user_name("gateway", vhost.removeprefix("ml-"))
    second = next_user(first)

    def gateways() -> set[str]:
        return {user.name for user in admin.users()} & {first, second}

    with changed(up, "topology.generations", {"gateway": [1, 2]}):
        up.pulumi(*UP)
        assert gateways() == {first, second}
        assert f"//{second}:" in up.outputs()["amqp_urls"]["gateway"]
        assert drift(up, vhost, admin) == NOTHING
        up.pulumi(*SAME)
    with changed(up, "topology.generations", {"gateway": [2]}):
        up.pulumi(*UP)
        assert gateways() == {second}
        assert drift(up, vhost, admin) == NOTHING
    up.pulumi(*UP)


def test_what_others_changed_is_seen_and_put_right(up: Program, vhost: str, admin: Management) -> None:
    before = policy(admin, vhost, "ml-expired")
    admin.put_policy(vhost, PolicyInfo("ml-expired", "^nothing$", "queues", {"max-length": 1}, 10))
    binding = next(each for each in admin.bindings(vhost) if each.source == "ml-unrouted-exchange")
    admin._send("DELETE", "unbind", None, "bindings", vhost, "e", binding.source, "q", binding.destination, "~")
    done = up.pulumi(*SAME, "--refresh", "--diff", status=None)
    assert done.status
    assert "ml-expired" in done
    assert "ml-unrouted-exchange-to-ml-unrouted" in done
    up.pulumi(*UP, "--refresh")
    assert policy(admin, vhost, "ml-expired") == before
    assert drift(up, vhost, admin) == NOTHING


def test_a_message_survives_a_change_that_would_replace_its_queue(up: Program, vhost: str, admin: Management) -> None:
    publish(admin, vhost, "kept")
    with changed(up, "topology.queue_type", "classic"):
        refused = up.pulumi("up", "--yes", status=None)
        assert refused.status
        assert "unable to replace resource" in refused
    assert take(admin, vhost) == ["kept"]


def test_destroy_is_refused_and_nothing_changes(up: Program, vhost: str, admin: Management) -> None:
    # Without a preview there is no check before the first step.
    for words in ((), ("--run-program",), ("--skip-preview",)):
        refused = up.pulumi("destroy", "--yes", *words, status=None)
        assert refused.status
        assert "because it is protected" in refused
        assert drift(up, vhost, admin) == NOTHING
    up.pulumi(*SAME)


def test_what_is_named_goes_only_when_it_is_empty(up: Program, vhost: str, admin: Management) -> None:
    up.config("allow_delete", [*QUEUES, vhost])
    up.pulumi(*UP)
    publish(admin, vhost, "kept")
    refused = up.pulumi(*DESTROY, status=None)
    assert refused.status
    assert f'The queue "{QUEUE}" holds 1 message: stop what uses it' in refused
    assert take(admin, vhost) == ["kept"]

    blind = up.pulumi("destroy", "--yes", "--skip-preview", status=None)
    assert blind.status
    assert "--run-program" in blind
    assert drift(up, vhost, admin) == NOTHING
    up.pulumi(*SAME)

    up.pulumi(*DESTROY)
    is_clean(vhost, admin)
