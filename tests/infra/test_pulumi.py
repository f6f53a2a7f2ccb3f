"""One stack from `pulumi up` to `pulumi destroy`. The tests stand in its order, and each leaves it as it found it."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelmq.amqp import connect, options_from_url
from modelmq.broker.management import Management
from modelmq.broker.management_values import PolicyInfo
from modelmq.broker.node import RunningNode
from modelmq.provision.apply import observe
from modelmq.provision.plan import Plan, plan
from modelmq.provision.pulumi_config import parse
from modelmq.topology import build, user_name
from tests.docs.pages import blocks
from tests.infra.conftest import PAGE
from tests.infra.engine import PASSPHRASE, Done, Program

QUEUE = "ml-service-queue"
QUEUES = (QUEUE, f"{QUEUE}.bulk", "ml-dead-letter.ml_service", "ml-expired", "ml-unrouted")
SAME = ("preview", "--expect-no-changes")
UP = ("up", "--yes", "--skip-preview")


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
    up.pulumi(*SAME, "--refresh")


def test_our_own_plan_finds_nothing_to_do(up: Program, vhost: str, admin: Management) -> None:
    assert drift(up, vhost, admin) == Plan((), ())


def test_secrets_are_in_config_and_state_but_not_to_be_read(up: Program, node: RunningNode) -> None:
    kept = up.state() + (up.path / "Pulumi.dev.yaml").read_text()
    words = [word for text in up.outputs()["amqp_urls"].values() for word in re.findall(r":([^:@/]+)@", text)]
    assert len(words) == 4
    assert "v1:" in kept
    assert [word for word in (*words, node.admin_password, PASSPHRASE) if word in kept] == []


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
        assert drift(up, vhost, admin) == Plan((), ())
    up.pulumi(*UP)
    up.pulumi(*SAME)


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
    assert drift(up, vhost, admin) == Plan((), ())


def test_a_message_survives_a_change_that_would_replace_its_queue(up: Program, vhost: str, admin: Management) -> None:
    publish(admin, vhost, "kept")
    with changed(up, "topology.queue_type", "classic"):
        refused = up.pulumi("up", "--yes", status=None)
        assert refused.status
        assert "unable to replace resource" in refused
    assert take(admin, vhost) == ["kept"]
    up.pulumi(*UP)
    up.pulumi(*SAME)


@pytest.mark.parametrize("words", [("--yes",), ("--yes", "--run-program"), ("--yes", "--skip-preview")])
def test_destroy_is_refused_and_nothing_changes(
    words: tuple[str, ...], up: Program, vhost: str, admin: Management
) -> None:
    refused = up.pulumi("destroy", *words, status=None)
    assert refused.status
    assert "cannot be deleted" in refused
    up.pulumi(*SAME)
    assert drift(up, vhost, admin) == Plan((), ())


def test_what_is_named_goes_only_when_it_is_empty(up: Program, vhost: str, admin: Management) -> None:
    up.config("allow_delete", [*QUEUES, vhost])
    up.pulumi(*UP)
    publish(admin, vhost, "kept")
    refused = up.pulumi("destroy", "--yes", "--run-program", "--skip-preview", status=None)
    assert refused.status
    assert f'The queue "{QUEUE}" holds 1 message: stop what uses it' in refused
    assert take(admin, vhost) == ["kept"]
    assert drift(up, vhost, admin) == Plan((), ())
    up.pulumi(*SAME)

    blind = up.pulumi("destroy", "--yes", "--skip-preview", status=None)
    assert blind.status
    assert "--run-program" in blind
    assert drift(up, vhost, admin) == Plan((), ())

    up.pulumi("destroy", "--yes", "--run-program", "--skip-preview")
    assert vhost not in {each.name for each in admin.vhosts()}
    environment = vhost.removeprefix("ml-")
    assert [user.name for user in admin.users() if user.name.endswith(f".{environment}")] == []


def drift(program: Program, vhost: str, admin: Management) -> Plan:
    """What our own plan would do to the broker, with the passwords that the stack tells."""
    texts = yaml_config(program)
    settings = parse(texts, "dev")
    topology = build(settings.settings.topology, vhost, settings.models, broker_version=admin.overview().version)
    urls = program.outputs()["amqp_urls"].values()
    passwords = dict(re.search(r"//([^:]+):([^@]+)@", url).groups() for url in urls)  # type: ignore[union-attr]
    return plan(topology, observe(vhost, admin), passwords)


def yaml_config(program: Program) -> dict[str, str]:
    """The stack's config, decrypted, by key."""
    found = json.loads(program.sh("pulumi config --json --show-secrets").output)
    prefix = "modelmq:"
    return {key.removeprefix(prefix): each["value"] for key, each in found.items() if key.startswith(prefix)}


@contextmanager
def changed(program: Program, key: str, value: object) -> Iterator[None]:
    """A key of the stack's config, for a while."""
    program.config(key, value)
    try:
        yield
    finally:
        program.config(key)


def updated(done: Done) -> set[str]:
    """The resources that an update changed in place, by kind and name."""
    return set(re.findall(r"^ ~\s+rabbitmq:index:(\w+ \S+) updated", done.output, re.MULTILINE))


def policy(admin: Management, vhost: str, name: str) -> PolicyInfo:
    return next(each for each in admin.policies(vhost) if each.name == name)


def publish(admin: Management, vhost: str, text: str) -> None:
    """A request to the service's queue."""
    body = {
        "properties": {"delivery_mode": 2},
        "routing_key": "ml_service",
        "payload": text,
        "payload_encoding": "string",
    }
    answer = admin._send("POST", "publish", body, "exchanges", vhost, "ml-model-exchange", "publish")
    assert json.loads(answer.body) == {"routed": True}


def take(admin: Management, vhost: str) -> list[str]:
    """All messages of the service's queue, which is empty after it."""
    body = {"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto"}
    answer = admin._send("POST", "get", body, "queues", vhost, QUEUE, "get")
    return [message["payload"] for message in json.loads(answer.body)]
