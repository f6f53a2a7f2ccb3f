from __future__ import annotations

import msgspec
import pytest

from modelmq.broker.management_values import (
    BindingInfo,
    ExchangeInfo,
    FeatureFlag,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    UserInfo,
    VhostInfo,
)
from modelmq.provision.passwords import password_hash
from modelmq.provision.plan import plan
from modelmq.provision.plan_values import Change, Observed
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

TOPOLOGY = build(TopologySettings(), "ml-dev", [ModelRoute("digits", ("1",))])
PASSWORDS = {user.name: f"password of {user.name}" for user in TOPOLOGY.users}
EMPTY = Observed(version=(3, 10, 8), admin="admin", vhosts=(VhostInfo("/"),), users=(UserInfo("admin"),))


def complete() -> Observed:
    """A broker on which everything is as it should be, with things of others beside."""
    return Observed(
        version=(3, 10, 8),
        admin="admin",
        vhosts=(VhostInfo("/"), VhostInfo("ml-dev", TOPOLOGY.vhost.description)),
        feature_flags=(FeatureFlag("quorum_queue", "enabled"), FeatureFlag("stream_queue", "enabled")),
        users=(
            UserInfo("admin", "administrator"),
            *(
                UserInfo(user.name, ",".join(user.tags), password_hash(PASSWORDS[user.name], b"salt"))
                for user in TOPOLOGY.users
            ),
        ),
        permissions=(
            PermissionInfo("admin", ".*", ".*", ".*"),
            *(PermissionInfo(each.user, each.configure, each.write, each.read) for each in TOPOLOGY.permissions),
        ),
        exchanges=(
            ExchangeInfo("amq.direct", "direct", True, False),
            *(ExchangeInfo(each.name, each.type, True, False) for each in TOPOLOGY.exchanges),
        ),
        queues=(
            QueueInfo("somebody's", False, True, True),
            *(QueueInfo(each.name, True, False, False, each.type, dict(each.arguments)) for each in TOPOLOGY.queues),
        ),
        bindings=(
            BindingInfo("", "ml-expired", "queue", "ml-expired"),
            *(
                BindingInfo(each.source, each.destination, "queue", each.routing_key, dict(each.arguments))
                for each in TOPOLOGY.bindings
            ),
        ),
        policies=tuple(
            PolicyInfo(each.name, each.pattern, each.apply_to, dict(each.definition), each.priority)
            for each in TOPOLOGY.policies
        ),
    )


def changes(observed: Observed) -> list[tuple[str, str, str, str]]:
    made = plan(TOPOLOGY, observed, PASSWORDS)
    assert made.refusals == ()
    return [(change.action, change.kind, change.name, change.why) for change in made.changes]


def refusal(observed: Observed) -> str:
    (one,) = plan(TOPOLOGY, observed, PASSWORDS).refusals
    return one.sentence


def replaced(observed: Observed, field: str, name: str, **values: object) -> Observed:
    items = tuple(
        msgspec.structs.replace(each, **values)
        if name in (getattr(each, "name", ""), getattr(each, "user", ""))
        else each
        for each in getattr(observed, field)
    )
    return msgspec.structs.replace(observed, **{field: items})


def test_nothing_differs() -> None:
    assert changes(complete()) == []


def test_an_empty_broker_gets_everything_in_the_order_of_its_needs() -> None:
    made = changes(EMPTY)
    assert {action for action, *_ in made} == {"create"}
    kinds = list(dict.fromkeys(kind for _, kind, _, _ in made))
    assert kinds == ["vhost", "user", "permission", "policy", "exchange", "queue", "binding"]
    parts = (TOPOLOGY.users, TOPOLOGY.permissions, TOPOLOGY.policies, TOPOLOGY.exchanges, TOPOLOGY.queues)
    assert len(made) == 2 + sum(map(len, parts)) + len(TOPOLOGY.bindings)


@pytest.mark.parametrize("field", ["users", "permissions", "policies", "exchanges", "queues", "bindings"])
def test_what_is_missing_is_created(field: str) -> None:
    mine = getattr(TOPOLOGY, field)[0]
    missing = next(each for each in getattr(complete(), field) if "ml-" in str(each) and "source=''" not in str(each))
    left = tuple(each for each in getattr(complete(), field) if each is not missing and each != missing)
    (change,) = plan(TOPOLOGY, msgspec.structs.replace(complete(), **{field: left}), PASSWORDS).changes
    assert (change.action, change.wanted) == ("create", mine)


def test_drift_is_named_with_what_was_and_what_will_be() -> None:
    policy = TOPOLOGY.policies[0]
    cases = {
        ("update", "policy", "ml-interactive", "max-length 5 -> 10000"): replaced(
            complete(), "policies", policy.name, definition={**policy.definition, "max-length": 5}
        ),
        ("update", "policy", "ml-bulk", "pattern .* -> " + TOPOLOGY.policies[1].pattern): replaced(
            complete(), "policies", "ml-bulk", pattern=".*"
        ),
        ("update", "policy", "ml-sorting", "colour red -> unset"): replaced(
            complete(), "policies", "ml-sorting", definition={**TOPOLOGY.policies[6].definition, "colour": "red"}
        ),
        ("update", "permission", "ml-gateway", "read .* -> ^$"): replaced(
            complete(), "permissions", "ml-gateway", read=".*"
        ),
        ("update", "user", "ml-client", "password"): replaced(
            complete(), "users", "ml-client", password_hash=password_hash("another", b"salt")
        ),
        ("update", "user", "ml-gateway", "tags administrator -> none"): replaced(
            complete(), "users", "ml-gateway", tags=("administrator",)
        ),
        ("update", "user", "ml-operator", "tags none -> monitoring, password"): replaced(
            complete(), "users", "ml-operator", tags="", password_hash=""
        ),
    }
    for expected, observed in cases.items():
        assert changes(observed) == [expected]


def test_no_password_is_in_a_plan() -> None:
    assert "password of" not in repr(plan(TOPOLOGY, EMPTY, PASSWORDS))


def test_an_administrator_without_rights_in_the_virtual_host_gives_itself_some_when_it_needs_them() -> None:
    observed = complete()
    others = tuple(each for each in observed.permissions if each.user != "admin")
    without = msgspec.structs.replace(observed, permissions=others)
    assert changes(without) == []
    missing = msgspec.structs.replace(without, exchanges=without.exchanges[:-1])
    assert changes(missing) == [
        ("create", "permission", "admin", "the administrator declares queues"),
        ("create", "exchange", TOPOLOGY.exchanges[-1].name, ""),
    ]


def test_what_cannot_be_changed_in_place_is_refused_with_the_steps() -> None:
    name = "ml-model.digits.bulk"
    classic = replaced(complete(), "queues", name, type="classic", arguments={}, messages=7)
    assert refusal(classic) == (
        'The queue "ml-model.digits.bulk" exists with other properties (x-queue-type classic -> quorum), which '
        "cannot be changed in place: stop its workers, let it run empty or move its 7 messages, delete it, "
        "and apply again; or apply with --replace ml-model.digits.bulk, which loses what it holds."
    )
    more = replaced(complete(), "queues", name, arguments={"x-queue-type": "quorum", "x-max-length": 5})
    assert "(x-max-length 5 -> unset)" in refusal(more)
    assert "durable false -> true" in refusal(replaced(complete(), "queues", name, durable=False))
    assert "exclusive true -> false" in refusal(replaced(complete(), "queues", name, exclusive=True))
    fanout = replaced(complete(), "exchanges", "ml-model-exchange", type="fanout")
    assert "(type fanout -> direct)" in refusal(fanout)
    alternate = replaced(complete(), "exchanges", "ml-model-exchange", arguments={"alternate-exchange": "x"})
    assert "(alternate-exchange x -> unset)" in refusal(alternate)


def test_a_classic_queue_is_classic_whether_it_says_so_or_not() -> None:
    topology = build(TopologySettings(queue_type="classic"), "ml-dev", [])
    for arguments in ({}, {"x-queue-type": "classic"}):
        there = tuple(QueueInfo(queue.name, True, False, False, "classic", arguments) for queue in topology.queues)
        observed = msgspec.structs.replace(complete(), queues=there)
        assert plan(topology, observed, PASSWORDS).refusals == ()


def test_brokers_that_cannot_keep_the_promises_are_refused() -> None:
    old = msgspec.structs.replace(complete(), version=(3, 9, 29))
    assert refusal(old) == "RabbitMQ 3.9.29 is too old: ModelMQ needs 3.10 or later."
    off = (FeatureFlag("stream_queue", "disabled"),)
    assert refusal(msgspec.structs.replace(complete(), feature_flags=off)) == (
        "Dead letters of quorum queues are safe only with the feature flag stream_queue, which is off: "
        "run rabbitmqctl enable_feature_flag stream_queue and apply again."
    )
    # Newer brokers no longer list what is always on.
    assert plan(TOPOLOGY, msgspec.structs.replace(complete(), feature_flags=()), PASSWORDS).refusals == ()


def test_a_change_holds_what_is_wanted() -> None:
    assert Change("create", "vhost", "ml-dev", TOPOLOGY.vhost) in plan(TOPOLOGY, EMPTY, PASSWORDS).changes
