"""`modelmq topology destroy` on a real broker: everything of ours, nothing of others, and nothing that is in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.provision import deletion
from modelmq.provision.ownership import parameter_name

if TYPE_CHECKING:
    from conftest import Cli, Proxy

pytestmark = pytest.mark.broker
LANE = "ml-model.digits.bulk"


def ours(cli: Cli, admin: Management) -> list[str]:
    """What is left of it anywhere on the broker."""
    vhost, environment = cli.settings.broker.vhost, cli.settings.topology.environment
    left = [each.name for each in admin.users() if each.name.startswith("ml-") and environment in each.name]
    left += [each.name for each in admin.vhosts() if each.name == vhost]
    return left + ([vhost] if admin.global_parameter(parameter_name(vhost)) is not None else [])


@pytest.mark.both_brokers
def test_applied_drifted_to_nothing_and_destroyed(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    assert (cli("drift").status, cli("plan").status) == (0, 0)
    assert ours(cli, admin)
    cli.serve("fraud")
    assert cli("apply", "--yes").status == 0
    assert cli("drift").out == "No drift.\n"
    said = cli("destroy", "--yes")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-2:] == [f"- vhost      {cli.settings.broker.vhost}", "72 deleted."]
    assert ours(cli, admin) == []
    assert cli("destroy", "--yes").out == "Nothing to delete.\n"
    # The secrets stayed, so the services know their passwords when it is all made again.
    assert cli("apply").status == 0
    assert cli("drift").out == "No drift.\n"


def test_somebody_has_to_agree(cli: Cli, proxy: Proxy) -> None:
    assert cli("apply").status == 0
    cli.configure(management_url=proxy.url)
    said = cli("destroy")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("modelmq: Nothing was done: this deletes 72 objects (")
    assert proxy.writes == []


@pytest.mark.both_brokers
def test_a_message_saves_everything_unless_its_queue_is_named(
    cli: Cli, admin: Management, proxy: Proxy, publish: Callable[[str], None]
) -> None:
    assert cli("apply").status == 0
    publish(LANE)
    cli.configure(management_url=proxy.url)
    said = cli("destroy", "--yes")
    assert said.status == 1
    assert f'Queues are in use ("{LANE}" holds 1 message)' in said.err
    assert proxy.writes == []
    assert cli("drift").out == "No drift.\n"
    assert cli("destroy", "--yes", "--delete", LANE).status == 0
    assert ours(cli, admin) == []


def test_what_others_have_stays_and_so_does_the_virtual_host(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    vhost, environment = cli.settings.broker.vhost, cli.settings.topology.environment
    gateway = f"ml-gateway.{environment}"
    admin.put_queue(vhost, "mine", {})
    admin.put_exchange(vhost, "mine", "topic")
    admin.add_binding(vhost, BindingInfo("mine", "mine", "queue", "#"))
    admin.put_policy(vhost, PolicyInfo("mine", "^mine$", "queues", {"max-length": 3}))
    admin.put_permission("/", PermissionInfo(gateway, "", "", ""))
    said = cli("destroy", "--yes")
    assert said.status == 0
    kept = [line for line in said.out.splitlines() if line.startswith("·")]
    assert kept == [
        f'· The user "{gateway}" stays, as it has rights in the virtual host "/" too.',
        f'· The virtual host "{vhost}" stays, as others have something in it: the queue "mine".',
    ]
    assert ours(cli, admin) == [gateway, vhost]
    assert [each.name for each in admin.queues(vhost)] == ["mine"]
    assert [each.name for each in admin.policies(vhost)] == ["mine"]
    assert [each.source for each in admin.bindings(vhost) if each.source] == ["mine"]
    assert "ml-model-exchange" not in {each.name for each in admin.exchanges(vhost)}


def test_a_virtual_host_of_somebody_else_is_left_alone(cli: Cli, admin: Management, proxy: Proxy) -> None:
    vhost = cli.settings.broker.vhost
    admin.put_vhost(vhost, "theirs")
    cli.configure(management_url=proxy.url)
    assert "was not made by ModelMQ" in cli("destroy", "--yes").out
    admin.put_queue(vhost, "ml-expired", {})
    said = cli("destroy", "--yes")
    assert said.status == 1
    assert f'The virtual host "{vhost}" belongs to somebody else (its description is "theirs")' in said.err
    assert proxy.objects_written == []
    assert [each.name for each in admin.queues(vhost)] == ["ml-expired"]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message was ever sent, so that the broker's statistics need not become true first."""
    monkeypatch.setattr(deletion, "_SETTLE_S", 0.0)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("allowed", [0, 3, 9, 15, 25])
def test_one_that_was_cut_short_is_finished_by_the_next(
    cli: Cli, admin: Management, proxy: Proxy, allowed: int
) -> None:
    assert cli("apply").status == 0
    cli.configure(management_url=proxy.url)
    proxy.allowed = allowed
    assert cli("destroy", "--yes").status == 1
    assert len(proxy.writes) == allowed
    proxy.allowed = None
    assert cli("destroy", "--yes").status == 0
    assert ours(cli, admin) == []


@pytest.mark.usefixtures("settled")
def test_the_same_for_programs(cli: Cli) -> None:
    assert cli("apply").status == 0
    told = cli("destroy", "--yes", "-o", "json").json
    assert {"action": "delete", "kind": "queue", "name": LANE, "why": ""} in told["changes"]
    assert told["kept"] == []
