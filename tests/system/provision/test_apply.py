"""Applying a topology to a real broker: all of it, once, again, after drift, halfway, twice at once, or not at all."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from modelmq.broker.management import Management
from modelmq.broker.management_values import PermissionInfo, PolicyInfo
from modelmq.broker.node import RunningNode
from modelmq.broker.secrets import secret_file
from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision import ApplyReport, provision
from modelmq.provision.passwords import matches, password_hash
from modelmq.retry_ladder import RUNGS_MS
from modelmq.settings import Settings
from modelmq.topology_names import ModelRoute
from modelmq.topology_values import Topology

if TYPE_CHECKING:
    from conftest import Proxy

pytestmark = pytest.mark.broker
DIGITS = ModelRoute("digits", ("1", "2"))
SERVICE = ModelRoute("service", queue="ml-service-queue", routing_key="ml_service")
MODELS = (DIGITS, SERVICE)


def assert_as_it_says(topology: Topology, admin: Management, settings: Settings) -> None:
    """Reads everything back."""
    vhost = topology.vhost.name
    assert {each.name: each.description for each in admin.vhosts()}[vhost] == topology.vhost.description
    exchanges = {each.name: each for each in admin.exchanges(vhost)}
    for exchange in topology.exchanges:
        found = exchanges[exchange.name]
        assert (found.type, found.durable, found.auto_delete, found.internal) == (exchange.type, True, False, False)
        assert found.arguments == {}
    queues = {each.name: each for each in admin.queues(vhost)}
    assert set(queues) == {queue.name for queue in topology.queues}
    for queue in topology.queues:
        there = queues[queue.name]
        assert (there.type, there.durable, there.auto_delete) == (queue.type, True, False)
        assert there.arguments == queue.arguments
    bindings = {
        (b.source, b.destination, b.routing_key, sorted_text(b.arguments)) for b in admin.bindings(vhost) if b.source
    }
    assert bindings == {(b.source, b.destination, b.routing_key, sorted_text(b.arguments)) for b in topology.bindings}
    policies = {
        each.name: (each.pattern, each.apply_to, each.definition, each.priority) for each in admin.policies(vhost)
    }
    assert policies == {
        each.name: (each.pattern, each.apply_to, each.definition, each.priority) for each in topology.policies
    }
    users = {each.name: each for each in admin.users()}
    for user in topology.users:
        assert users[user.name].tag_set == set(user.tags)
        password = secret_file(settings.state_dir, user.name).read_text().strip()
        assert matches(password, users[user.name].password_hash, users[user.name].hashing_algorithm)
    permissions = {each.user: (each.configure, each.write, each.read) for each in admin.permissions(vhost)}
    wanted = {each.user: (each.configure, each.write, each.read) for each in topology.permissions}
    assert permissions == {**wanted, admin.username: (".*", ".*", ".*")}


def sorted_text(arguments: Mapping[str, object]) -> str:
    return str(sorted(arguments.items()))


def secrets_in(settings: Settings) -> dict[str, str]:
    folder = Path(settings.state_dir) / "secrets"
    return {path.name: path.read_text() for path in folder.iterdir()}


def description(settings: Settings) -> str:
    return f"ModelMQ, environment {settings.topology.environment}"


def named(report: ApplyReport) -> list[tuple[str, str, str]]:
    return sorted((change.action, change.kind, change.name) for change in report.changes)


@pytest.mark.both_brokers
def test_everything_is_made_once(settings: Settings, proxy: Proxy, through: Management, admin: Management) -> None:
    first = provision(settings, MODELS, through)
    assert_as_it_says(first.topology, admin, settings)
    assert len(proxy.objects_written) == first.writes
    assert re.fullmatch(
        r"\d+ written: 46 binding, 8 exchange, 5 permission, 29 policy, 29 queue, 4 user, 1 vhost\.", str(first)
    )

    proxy.asked.clear()
    kept = secrets_in(settings)
    second = provision(settings, MODELS, through)
    assert proxy.asked
    assert proxy.writes == []
    assert (second.writes, str(second)) == (0, "Nothing to change.")
    assert secrets_in(settings) == kept


@pytest.mark.both_brokers
def test_the_broker_gives_its_policies_to_the_queues(settings: Settings, admin: Management) -> None:
    provision(settings, MODELS, admin)
    # The broker tells a queue's policy with its statistics, which it gathers every 5 s.
    deadline = time.monotonic() + 30
    policies: dict[str, str | None] = {"": None}
    while None in policies.values() and time.monotonic() < deadline:
        policies = {queue.name: queue.policy for queue in admin.queues(settings.broker.vhost)}
        time.sleep(0.1)
    assert policies == {
        "ml-expired": "ml-expired",
        "ml-unrouted": "ml-unrouted",
        **{f"ml-retry.{delay_ms}": f"ml-retry.{delay_ms}" for delay_ms in RUNGS_MS},
        "ml-model.digits.interactive": "ml-interactive",
        "ml-model.digits.bulk": "ml-bulk",
        "ml-dead-letter.digits": "ml-dead-letter",
        "ml-service-queue": "ml-interactive",
        "ml-service-queue.bulk": "ml-bulk",
        "ml-dead-letter.service": "ml-dead-letter",
    }


@pytest.mark.both_brokers
def test_drift_is_corrected_in_place(settings: Settings, proxy: Proxy, through: Management, admin: Management) -> None:
    topology = provision(settings, MODELS, admin).topology
    vhost, environment = settings.broker.vhost, settings.topology.environment
    gateway, client, operator = (f"ml-{name}.{environment}" for name in ("gateway", "client", "operator"))
    policy = next(each for each in admin.policies(vhost) if each.name == "ml-bulk")
    admin.put_policy(vhost, msgspec.structs.replace(policy, definition={**policy.definition, "max-length": 1}))
    admin.put_permission(vhost, PermissionInfo(gateway, ".*", ".*", ".*"))
    admin.put_user(client, password_hash("changed by hand", b"salt"), ())
    admin.put_user(operator, "", ("administrator",))
    admin._send(
        "DELETE", "unbind", None, "bindings", vhost, "e", "ml-model-exchange", "q", "ml-service-queue", "ml_service"
    )
    admin._send("DELETE", "delete", None, "queues", vhost, "ml-dead-letter.digits")

    report = provision(settings, MODELS, through)
    assert_as_it_says(topology, admin, settings)
    assert named(report) == [
        ("create", "binding", "ml-dead-letter-exchange -> ml-dead-letter.digits (digits.#)"),
        ("create", "binding", "ml-model-exchange -> ml-service-queue (ml_service)"),
        ("create", "queue", "ml-dead-letter.digits"),
        ("update", "permission", gateway),
        ("update", "policy", "ml-bulk"),
        ("update", "user", client),
        ("update", "user", operator),
    ]
    assert len(proxy.objects_written) == 7
    assert "changed by hand" not in str(report.changes)


def test_things_of_others_are_left_alone(settings: Settings, admin: Management) -> None:
    vhost = settings.broker.vhost
    admin.put_vhost(vhost, description(settings))
    admin.put_queue(vhost, "mine", {})
    admin.put_exchange(vhost, "mine", "topic")
    admin.put_policy(vhost, PolicyInfo("mine", "^mine$", "queues", {"max-length": 3}))
    provision(settings, MODELS, admin)
    provision(settings, (DIGITS,), admin)
    assert {"mine", "ml-service-queue", "ml-dead-letter.service"} <= {queue.name for queue in admin.queues(vhost)}
    assert "mine" in {exchange.name for exchange in admin.exchanges(vhost)}
    assert next(each for each in admin.policies(vhost) if each.name == "mine").definition == {"max-length": 3}


def test_a_new_model_adds_what_it_needs_and_no_more(settings: Settings, admin: Management) -> None:
    provision(settings, (DIGITS,), admin)
    report = provision(settings, (DIGITS, ModelRoute("fraud")), admin)
    worker = f"ml-worker-default.{settings.topology.environment}"
    assert {(action, kind) for action, kind, _ in named(report)} == {
        ("create", "queue"), ("create", "binding"), ("update", "permission"),
    }  # fmt: skip
    assert ("update", "permission", worker) in named(report)
    assert [name for _, kind, name in named(report) if kind == "queue"] == [
        "ml-dead-letter.fraud",
        "ml-model.fraud.bulk",
        "ml-model.fraud.interactive",
    ]


@pytest.mark.both_brokers
def test_what_cannot_be_changed_is_refused_before_the_first_write(
    settings: Settings, proxy: Proxy, through: Management, admin: Management
) -> None:
    vhost = settings.broker.vhost
    admin.put_vhost(vhost, description(settings))
    admin.put_queue(vhost, "ml-model.digits.bulk", {"x-queue-type": "classic"})
    message = {"properties": {}, "routing_key": "ml-model.digits.bulk", "payload": "kept", "payload_encoding": "string"}
    admin._send("POST", "publish", message, "exchanges", vhost, "amq.default", "publish")
    with pytest.raises(ProvisionError) as caught:
        provision(settings, MODELS, through)
    assert caught.value.message.startswith(
        'The queue "ml-model.digits.bulk" exists with other properties (x-queue-type classic -> quorum), which '
        "cannot be changed in place: stop its workers, let it run empty"
    )
    assert proxy.writes == []
    assert [queue.name for queue in admin.queues(vhost)] == ["ml-model.digits.bulk"]
    get = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
    kept = admin._send("POST", "look", get, "queues", vhost, "ml-model.digits.bulk", "get")
    assert msgspec.json.decode(kept.body)[0]["payload"] == "kept"


def test_several_refusals_are_one_sentence_and_a_number(settings: Settings, admin: Management) -> None:
    vhost = settings.broker.vhost
    admin.put_vhost(vhost, description(settings))
    for name in ("ml-model-exchange", "ml-control-exchange"):
        admin.put_exchange(vhost, name, "topic")
    with pytest.raises(
        ProvisionError, match=r'The exchange "ml-model-exchange" .*type topic -> direct.* \(1 more like it\.\)'
    ):
        provision(settings, MODELS, admin)


@pytest.mark.both_brokers
@pytest.mark.parametrize("allowed", [0, 1, 4, 11, 30, 55])
def test_an_apply_that_was_cut_short_is_finished_by_the_next(
    settings: Settings, proxy: Proxy, through: Management, admin: Management, allowed: int
) -> None:
    proxy.allowed = allowed
    with pytest.raises(
        ProvisionError, match=r"closed the connection without a whole answer|does not speak proper HTTP"
    ):
        provision(settings, MODELS, through)
    assert len(proxy.writes) == allowed
    kept = secrets_in(settings)
    proxy.allowed = None
    report = provision(settings, MODELS, through)
    assert_as_it_says(report.topology, admin, settings)
    assert secrets_in(settings) == kept
    assert provision(settings, MODELS, through).writes == 0


@pytest.mark.both_brokers
def test_two_at_once_agree(settings: Settings, node: RunningNode, admin: Management) -> None:
    def apply(_: int) -> ApplyReport:
        with Management(node.management_url, node.admin_username, node.admin_password) as management:
            return provision(settings, MODELS, management)

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(apply, range(3)))
    assert_as_it_says(reports[0].topology, admin, settings)
    assert provision(settings, MODELS, admin).writes == 0


def test_secrets_are_files_of_their_owner_only(settings: Settings, admin: Management) -> None:
    topology = provision(settings, MODELS, admin).topology
    folder = Path(settings.state_dir) / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert set(secrets_in(settings)) == {user.name for user in topology.users}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    values = [value.strip() for value in secrets_in(settings).values()]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 32 for value in values)


def test_a_secret_that_was_replaced_is_taken_to_the_broker(settings: Settings, admin: Management) -> None:
    topology = provision(settings, MODELS, admin).topology
    gateway = f"ml-gateway.{settings.topology.environment}"
    secret_file(settings.state_dir, gateway).write_text("a rotated password\n")
    assert named(provision(settings, MODELS, admin)) == [("update", "user", gateway)]
    assert_as_it_says(topology, admin, settings)


def test_a_secret_that_everybody_can_read_is_refused(settings: Settings, admin: Management) -> None:
    provision(settings, MODELS, admin)
    path = secret_file(settings.state_dir, f"ml-gateway.{settings.topology.environment}")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"everybody can read the file .*; run chmod 600"):
        provision(settings, MODELS, admin)


@pytest.mark.both_brokers
def test_a_virtual_host_that_cannot_be(settings: Settings, proxy: Proxy, through: Management) -> None:
    broker = msgspec.structs.replace(settings.broker, vhost="a b")
    with pytest.raises(ConfigError, match=r'broker\.vhost: "a b" must be 1 to 250 letters, digits'):
        provision(msgspec.structs.replace(settings, broker=broker), MODELS, through)
    assert proxy.writes == []
