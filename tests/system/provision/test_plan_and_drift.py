"""`modelmq topology plan` and `drift` on a real broker: what they see, what they say, their statuses, and no write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from modelmq.broker.management import Management
from modelmq.broker.management_values import BindingInfo, PermissionInfo, PolicyInfo
from modelmq.provision.passwords import password_hash

if TYPE_CHECKING:
    from conftest import Cli, Proxy

pytestmark = pytest.mark.broker
LANE = "ml-model.digits.bulk"
MOST_CALLS = 15


def test_a_plan_shows_everything_and_does_nothing(cli: Cli, proxy: Proxy) -> None:
    cli.configure(management_url=proxy.url)
    said = cli("plan")
    assert said.status == 2
    assert f"+ queue      {LANE}\n" in said.out
    assert said.out.splitlines()[-1] == "105 to write."
    assert proxy.writes == []
    assert len(proxy.asked) <= MOST_CALLS
    assert not (Path(cli.settings.state_dir) / "secrets").exists()
    assert cli("drift").status == 2


def test_after_an_apply_nothing_is_left_to_do(cli: Cli, proxy: Proxy) -> None:
    cli.configure(management_url=proxy.url)
    assert cli("apply").status == 0
    proxy.asked.clear()
    said = cli("plan")
    assert (said.status, said.out) == (0, "Nothing to change.\n")
    assert len(proxy.asked) <= MOST_CALLS
    proxy.asked.clear()
    said = cli("drift")
    assert (said.status, said.out) == (0, "No drift.\n")
    assert len(proxy.asked) <= MOST_CALLS
    again = cli("apply")
    assert (again.status, again.out) == (0, "Nothing to change.\n")
    assert proxy.writes == []


def test_the_same_for_programs(cli: Cli) -> None:
    planned = cli("plan", "-o", "json")
    assert planned.status == 2
    told = planned.json
    assert told["vhost"] == cli.settings.broker.vhost
    assert {"action": "create", "kind": "queue", "name": LANE, "why": ""} in told["changes"]
    assert (told["refusals"], told["kept"], told["strays"]) == ([], [], [])
    assert cli("apply", "-o", "json").json["changes"] == told["changes"]
    after = cli("plan", "-o", "json")
    assert (after.status, after.json["changes"]) == (0, [])
    assert after.json["observed"] != told["observed"]
    assert cli("drift", "-o", "json").json["observed"] == after.json["observed"]


def user(cli: Cli, service: str) -> str:
    return f"ml-{service}.{cli.settings.topology.environment}"


def password(cli: Cli, admin: Management) -> str:
    admin.put_user(user(cli, "client"), password_hash("changed by hand", b"salt"), ())
    return f"~ user       {user(cli, 'client')}  (password)"


def tag(cli: Cli, admin: Management) -> str:
    name = user(cli, "gateway")
    there = next(each for each in admin.users() if each.name == name)
    admin.put_user(name, there.password_hash, ("policymaker",))
    return f"~ user       {name}  (tags policymaker -> none)"


def permission(cli: Cli, admin: Management) -> str:
    admin.put_permission(cli.settings.broker.vhost, PermissionInfo(user(cli, "gateway"), "^$", "^x$", "^$"))
    return f"~ permission {user(cli, 'gateway')}  (write ^x$ -> ^(ml-model-exchange|ml-control-exchange)$)"


def policy(cli: Cli, admin: Management) -> str:
    vhost = cli.settings.broker.vhost
    found = next(each for each in admin.policies(vhost) if each.name == "ml-bulk")
    admin.put_policy(vhost, msgspec.structs.replace(found, definition={**found.definition, "max-length": 1}))
    return "~ policy     ml-bulk  (max-length 1 -> 10000)"


def missing_binding(cli: Cli, admin: Management) -> str:
    vhost = cli.settings.broker.vhost
    found = next(
        each for each in admin.bindings(vhost) if (each.destination, each.routing_key) == (LANE, "digits.bulk")
    )
    admin.delete_binding(vhost, found)
    return f"+ binding    {found.source} -> {LANE} (digits.bulk)"


def another_queue_type(cli: Cli, admin: Management) -> str:
    admin.delete_queue(cli.settings.broker.vhost, LANE)
    admin.put_queue(cli.settings.broker.vhost, LANE, {"x-queue-type": "classic"})
    return f'! The queue "{LANE}" exists with other properties (x-queue-type classic -> quorum), which cannot'


def another_binding(cli: Cli, admin: Management) -> str:
    binding = BindingInfo("ml-model-exchange", LANE, "queue", "by.hand")
    admin.add_binding(cli.settings.broker.vhost, binding)
    return f'? The binding "ml-model-exchange -> {LANE} (by.hand)" was added by somebody else.'


def a_tap(cli: Cli, admin: Management) -> str:
    admin.put_queue(cli.settings.broker.vhost, "tap", {})
    admin.add_binding(cli.settings.broker.vhost, BindingInfo("ml-model-exchange", "tap", "queue", "digits"))
    return '? The binding "ml-model-exchange -> tap (digits)" was added by somebody else, who gets a copy'


def rights_elsewhere(cli: Cli, admin: Management) -> str:
    admin.put_permission("/", PermissionInfo(user(cli, "gateway"), ".*", ".*", ".*"))
    return f'? The user "{user(cli, "gateway")}" was given rights in the virtual host "/" too.'


def rights_of_others(cli: Cli, admin: Management) -> str:
    # Named like the test's own users, so that it is tidied up with them.
    name = f"somebody.{cli.settings.topology.environment}"
    admin.put_user(name, password_hash("x", b"salt"), ())
    admin.put_permission(cli.settings.broker.vhost, PermissionInfo(name, "", "", "model-exchange"))
    return f'? The user "{name}" is none of ours and has rights on "ml-model-exchange".'


def another_policy(cli: Cli, admin: Management) -> str:
    admin.put_policy(cli.settings.broker.vhost, PolicyInfo("theirs", "bulk$", "queues", {"max-length": 3}, 11))
    return f'? The policy "theirs" is none of ours and wins over ours on "{LANE}".'


@pytest.mark.parametrize(
    "change",
    [password, tag, permission, policy, missing_binding, another_queue_type, another_binding, a_tap, rights_elsewhere,
     rights_of_others, another_policy],
)  # fmt: skip
def test_drift_is_seen(cli: Cli, admin: Management, change: Callable[[Cli, Management], str]) -> None:
    assert cli("apply").status == 0
    line = change(cli, admin)
    said = cli("drift")
    assert said.status == 2
    assert [told for told in said.out.splitlines() if told.startswith(line)], said.out
    assert said.out.splitlines()[-1] == "The broker differs from the topology."
    assert "changed by hand" not in said.out


def test_what_does_not_reach_ours_is_no_drift(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    vhost = cli.settings.broker.vhost
    name = f"somebody.{cli.settings.topology.environment}"
    admin.put_user(name, password_hash("x", b"salt"), ())
    admin.put_permission(vhost, PermissionInfo(name, "^mine", "^mine", "^mine"))
    admin.put_queue(vhost, "mine", {})
    admin.put_exchange(vhost, "mine", "topic")
    admin.add_binding(vhost, BindingInfo("mine", "mine", "queue", "#"))
    admin.put_policy(vhost, PolicyInfo("theirs", "^m", "all", {"max-length": 3}, 9))
    said = cli("drift")
    # A policy of theirs that also matches ours loses, except on exchanges of ours that have none.
    assert said.out.splitlines() == [
        '? The policy "theirs" is none of ours and wins over ours on "ml-model-exchange" and 4 more.',
        "The broker differs from the topology.",
    ]
    admin.delete_policy(vhost, "theirs")
    assert cli("drift").out == "No drift.\n"


def test_drift_without_the_secrets_says_what_it_cannot_tell(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    gateway = user(cli, "gateway")
    (Path(cli.settings.state_dir) / "secrets" / gateway).unlink()
    said = cli("drift")
    assert (said.status, said.out.splitlines()) == (
        0,
        [f"· The password of {gateway} is not compared: there is no secret file.", "No drift."],
    )
    planned = cli("plan")
    assert (planned.status, planned.out.splitlines()[0]) == (2, f"~ user       {gateway}  (password)")
    assert not (Path(cli.settings.state_dir) / "secrets" / gateway).exists()


def test_a_plan_that_cannot_be_applied_ends_with_1(cli: Cli, admin: Management, proxy: Proxy) -> None:
    assert cli("apply").status == 0
    another_queue_type(cli, admin)
    said = cli("plan")
    assert said.status == 1
    assert said.out.splitlines()[-1] == "This cannot be applied."
    assert said.err.startswith(f'modelmq: The queue "{LANE}" exists with other properties')
    assert f"--replace {LANE}" in said.err


def test_a_conflict_that_is_named_is_replaced_with_all_that_hangs_on_it(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    another_queue_type(cli, admin)
    planned = cli("plan", "--replace", LANE)
    assert planned.status == 2
    assert f"± queue      {LANE}  (x-queue-type classic -> quorum)" in planned.out
    refused = cli("apply", "--replace", LANE)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"modelmq: Nothing was done: this deletes 1 object ({LANE})")
    assert cli("apply", "--replace", LANE, "--yes").status == 0
    assert cli("drift").out == "No drift.\n"


def test_a_binding_of_somebody_else_saves_a_queue_from_replacement(cli: Cli, admin: Management) -> None:
    assert cli("apply").status == 0
    another_queue_type(cli, admin)
    another_binding(cli, admin)
    said = cli("apply", "--replace", LANE, "--yes")
    assert said.status == 1
    assert f'The queue "{LANE}" cannot be replaced while others\' bindings hang on it' in said.err
    assert {queue.name: queue.type for queue in admin.queues(cli.settings.broker.vhost)}[LANE] == "classic"
