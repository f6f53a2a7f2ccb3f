from __future__ import annotations

import msgspec

from modelmq.broker.management_values import (
    BindingInfo,
    ExchangeInfo,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    UserInfo,
)
from modelmq.provision.plan_values import Allowed, BindingKey, Kept, Observed, Owned, Removal
from modelmq.provision.removals import in_use, removals
from modelmq.settings import TopologySettings
from modelmq.topology import build

TOPOLOGY = build(TopologySettings(), "ml-dev", [])
BINDING = BindingInfo("x", "q", "queue", "key", {}, "key")
FORMER = Owned(
    frozenset({"u"}),
    frozenset({"p"}),
    frozenset({"x"}),
    frozenset({"q"}),
    frozenset({BindingKey("x", "q", "key", "{}")}),
)
THERE = Observed(
    (3, 10, 8),
    "admin",
    users=(UserInfo("u"), UserInfo("v")),
    permissions=(PermissionInfo("u", "", "", ""), PermissionInfo("v", "", "", "")),
    exchanges=(ExchangeInfo("x", "topic", True, False), ExchangeInfo("y", "topic", True, False)),
    queues=(QueueInfo("q", True, False), QueueInfo("r", True, False)),
    bindings=(BINDING, BindingInfo("y", "r", "queue", "key")),
    policies=(PolicyInfo("p", "^q$", "queues", {}), PolicyInfo("r", "^q$", "queues", {})),
    recorded=FORMER,
)
REMOVE = Allowed(remove=True)


def changed(**there: object) -> tuple[tuple[Removal, ...], tuple[Kept, ...]]:
    return removals(TOPOLOGY, msgspec.structs.replace(THERE, **there), REMOVE)


def test_what_is_recorded_and_unwanted_goes_in_the_order_of_its_needs() -> None:
    gone, kept = removals(TOPOLOGY, THERE, REMOVE)
    assert [(each.kind, each.name) for each in gone] == [
        ("binding", "x -> q (key)"),
        ("queue", "q"),
        ("exchange", "x"),
        ("policy", "p"),
        ("permission", "u"),
        ("user", "u"),
    ]
    assert gone[0].binding == BINDING
    assert kept == ()
    assert removals(TOPOLOGY, THERE, Allowed()) == ((), ())


def test_a_queue_in_use_stays_unless_it_is_named() -> None:
    for use, words in (({"messages": 1}, "holds 1 message"), ({"consumers": 2}, "has 2 consumers")):
        queues = (QueueInfo("q", True, False, **use),)
        gone, kept = changed(queues=queues)
        assert "queue" not in {each.kind for each in gone}
        assert words in kept[0].sentence
        named = msgspec.structs.replace(REMOVE, delete=frozenset({"q"}))
        gone, kept = removals(TOPOLOGY, msgspec.structs.replace(THERE, queues=queues), named)
        assert (gone[1], kept) == (Removal("queue", "q", why=words, by_name=True), ())
    _, kept = removals(TOPOLOGY, THERE, msgspec.structs.replace(REMOVE, spare=frozenset({"q"})))
    assert "but is in use" in kept[0].sentence


def test_an_exchange_others_are_bound_to_stays() -> None:
    for other in (BindingInfo("x", "r", "queue", ""), BindingInfo("y", "x", "exchange", "")):
        gone, kept = changed(bindings=(BINDING, other))
        assert ("exchange", "x") not in {(each.kind, each.name) for each in gone}
        assert kept[0].sentence.startswith('The exchange "x" stays, as others are bound to it')


def test_a_user_with_rights_elsewhere_loses_only_those_here() -> None:
    gone, kept = changed(elsewhere=(PermissionInfo("u", "", "", "", "other"),))
    assert [(each.kind, each.name) for each in gone][-1] == ("permission", "u")
    assert kept[0].sentence == 'The user "u" stays, as it has rights in the virtual host "other" too.'


def test_use_in_words() -> None:
    assert in_use(QueueInfo("q", True, False)) == ""
    assert in_use(QueueInfo("q", True, False, state="running")) == ""
    assert in_use(QueueInfo("q", True, False, state="down")) == "is down, so that nobody can tell what it holds"
    assert in_use(QueueInfo("q", True, False, messages=3, consumers=1)) == "holds 3 messages and has 1 consumer"
