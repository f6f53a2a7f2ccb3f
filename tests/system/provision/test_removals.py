"""What happens to what a former topology had: deleted when unused and agreed to, kept otherwise, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.broker.node import RunningNode
from modelmq.provision import deletion
from modelmq.provision.ownership import parameter_name
from modelmq.settings import Settings

if TYPE_CHECKING:
    from conftest import Cli, Proxy

pytestmark = pytest.mark.broker
LANES = ["ml-model.old.bulk", "ml-model.old.interactive"]
ALL_OLD = ["ml-dead-letter.old", *LANES]


@pytest.fixture
def two(cli: Cli) -> Cli:
    """The models `digits` and `old` are applied, and `old` is taken away."""
    cli.serve("digits/1", "digits/2", "old")
    assert cli("apply").status == 0
    cli.serve("digits/1")
    return cli


@contextmanager
def channel(node: RunningNode, settings: Settings) -> Iterator[BlockingChannel]:
    credentials = pika.PlainCredentials(node.admin_username, node.admin_password)
    host = pika.ConnectionParameters("127.0.0.1", node.amqp_port, settings.broker.vhost, credentials)
    with pika.BlockingConnection(host) as connection:
        yield connection.channel()


def until(true: Callable[[], bool]) -> None:
    """The broker tells how many messages there are with its statistics, which it gathers every 5 s."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def queues(cli: Cli, admin: Management) -> set[str]:
    return {queue.name for queue in admin.queues(cli.settings.broker.vhost)}


def test_unused_things_of_a_former_topology_go(two: Cli, admin: Management) -> None:
    planned = two("plan")
    assert planned.status == 2
    for name in ALL_OLD:
        assert f"- queue      {name}\n" in planned.out
    assert f"- binding    ml-model-exchange -> {LANES[0]} (old.bulk)\n" in planned.out
    assert "- binding    ml-model-exchange -> ml-model.digits.bulk (digits.2.bulk)\n" in planned.out
    assert two("drift").status == 2
    assert two("apply", "--yes").status == 0
    assert queues(two, admin).isdisjoint(ALL_OLD)
    assert (two("plan").out, two("drift").out) == ("Nothing to change.\n", "No drift.\n")


def test_nothing_is_deleted_unless_somebody_agreed(two: Cli, admin: Management, proxy: Proxy) -> None:
    two.configure(management_url=proxy.url)
    said = two("apply")
    assert said.status == 1
    assert "Nothing was done: this deletes" in said.err
    assert proxy.writes == []
    assert set(ALL_OLD) <= queues(two, admin)


def test_a_queue_that_just_got_a_message_stays(two: Cli, admin: Management, publish: Callable[[str], None]) -> None:
    # Statistics do not show it yet: the plan still wants to delete the queue, and the queue itself is asked.
    publish(LANES[0])
    assert two("apply", "--yes").status == 0
    assert queues(two, admin) & set(ALL_OLD) == {LANES[0]}
    kept = f'· The queue "{LANES[0]}" is of no model any more, but holds 1 message: it stays unless --delete'
    until(lambda: kept in two("drift").out)
    told = two("plan")
    assert told.status == 0
    assert kept in told.out
    assert two("apply", "--delete", LANES[0], "--yes").status == 0
    assert two("drift").out == "No drift.\n"
    assert queues(two, admin).isdisjoint(ALL_OLD)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_queue_with_a_consumer_or_a_message_being_worked_on_stays(
    cli: Cli, admin: Management, node: RunningNode, publish: Callable[[str], None], queue_type: str
) -> None:
    config = cli.folder / "modelmq.toml"
    config.write_text(config.read_text().replace("[broker]", f'queue_type = "{queue_type}"\n[broker]'))
    cli.serve("digits", "old")
    assert cli("apply").status == 0
    cli.serve("digits")
    publish(LANES[0])
    with channel(node, cli.settings) as mine:
        got, _, _ = mine.basic_get(LANES[0])
        assert got is not None
        mine.basic_consume(LANES[1], lambda *_: None)
        assert cli("apply", "--yes").status == 0
    assert queues(cli, admin) & set(ALL_OLD) == set(LANES)


def test_what_others_made_is_never_deleted(two: Cli, admin: Management) -> None:
    vhost = two.settings.broker.vhost
    somebody = f"somebody.{two.settings.topology.environment}"
    admin.put_queue(vhost, "mine", {})
    admin.put_exchange(vhost, "mine", "topic")
    admin.put_policy(vhost, PolicyInfo("mine", "^mine$", "queues", {"max-length": 3}))
    admin.put_user(somebody, "", ())
    admin.put_permission(vhost, PermissionInfo(somebody, "^mine$", "", ""))
    admin.add_binding(vhost, BindingInfo("mine", "mine", "queue", "#"))
    admin.add_binding(vhost, BindingInfo("ml-model-exchange", "mine", "queue", "old"))
    assert two("apply", "--yes").status == 0
    assert "mine" in queues(two, admin)
    assert "mine" in {each.name for each in admin.exchanges(vhost)}
    assert "mine" in {each.name for each in admin.policies(vhost)}
    assert somebody in {each.user for each in admin.permissions(vhost)}
    assert len([each for each in admin.bindings(vhost) if each.destination == "mine" and each.source]) == 2


def test_without_a_record_nothing_is_deleted(two: Cli, admin: Management) -> None:
    """As after Pulumi, which writes none."""
    admin.delete_global_parameter(parameter_name(two.settings.broker.vhost))
    assert "- " not in [line[:2] for line in two("plan").out.splitlines()]
    assert two("apply", "--yes").status == 0
    assert set(ALL_OLD) <= queues(two, admin)
    refused = two("apply", "--delete", LANES[0], "--yes")
    assert refused.status == 1
    assert f'The queue "{LANES[0]}" was not made by ModelMQ, so --delete leaves it alone.' in refused.err


def test_a_queue_of_a_model_that_is_there_is_not_deleted_by_name(two: Cli, admin: Management) -> None:
    refused = two("apply", "--delete", "ml-model.digits.bulk", "--yes")
    assert refused.status == 1
    assert "is of a model that is there" in refused.err
    assert set(ALL_OLD) <= queues(two, admin)


def test_a_record_that_cannot_be_read_is_told(two: Cli, admin: Management) -> None:
    name = parameter_name(two.settings.broker.vhost)
    admin.put_global_parameter(name, {"format": 99})
    said = two("apply", "--yes")
    assert said.status == 1
    assert f"clear_global_parameter {name}" in said.err
    assert set(ALL_OLD) <= queues(two, admin)


def test_a_role_that_is_gone_takes_its_user_along_unless_it_is_used_elsewhere(cli: Cli, admin: Management) -> None:
    environment = cli.settings.topology.environment
    config = cli.folder / "modelmq.toml"
    one = config.read_text()
    config.write_text(one + '[topology.roles]\nvision = ["digits"]\nsound = ["digits"]\nspare = ["digits"]\n')
    assert cli("apply").status == 0
    vision, sound = f"ml-worker-vision.{environment}", f"ml-worker-sound.{environment}"
    admin.put_permission("/", PermissionInfo(sound, "", "", "^x$"))
    config.write_text(one)
    assert cli("apply", "--yes").status == 0
    names = {user.name for user in admin.users()}
    assert vision not in names
    assert sound in names
    assert sound not in {each.user for each in admin.permissions(cli.settings.broker.vhost)}
    assert cli("drift").out == "No drift.\n"


def test_amqp_that_cannot_be_reached_deletes_nothing(
    two: Cli, admin: Management, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_SETTLE_S", 0.0)
    two.configure(hosts=["127.0.0.1:1"])
    said = two("apply", "--yes")
    assert said.status == 1
    assert "Whether queues are empty cannot be asked over AMQP (broker.hosts)" in said.err
    assert set(ALL_OLD) <= queues(two, admin)
