from __future__ import annotations

import msgspec
import pytest

from modelmq.broker.management_values import BindingInfo, ExchangeInfo, PolicyInfo, QueueInfo, VhostInfo
from modelmq.provision.conflicts import Conflicts, conflicts
from modelmq.provision.ownership import owned_by
from modelmq.provision.plan_values import Allowed, Observed, Owned
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

TOPOLOGY = build(TopologySettings(), "ml-dev", [ModelRoute("digits")])
EXCHANGE = "ml-model-exchange"
FANOUT = ExchangeInfo(EXCHANGE, "fanout", True, False)


def found(allowed: Allowed = Allowed(), description: str = TOPOLOGY.vhost.description, **there: object) -> Conflicts:  # noqa: B008
    observed = Observed((3, 10, 8), "admin", vhosts=(VhostInfo("ml-dev", description),))
    return conflicts(TOPOLOGY, msgspec.structs.replace(observed, **there), allowed)


@pytest.mark.parametrize(
    "there",
    [
        {"queues": (QueueInfo("q", True, False),)},
        {"exchanges": (ExchangeInfo("x", "topic", True, False),)},
        {"policies": (PolicyInfo("p", ".*", "all", {}),)},
    ],
)
def test_a_virtual_host_with_things_of_others_belongs_to_them(there: dict[str, object]) -> None:
    (refusal,) = found(description="theirs", **there).refusals
    assert refusal.sentence == (
        'The virtual host "ml-dev" belongs to somebody else (its description is "theirs"): '
        "set broker.vhost to another, or take it over with topology apply --adopt."
    )
    assert found(Allowed(adopt=True), "theirs", **there).refusals == ()
    assert found(description="theirs", recorded=owned_by(TOPOLOGY), **there).refusals == ()
    assert found(**there).refusals == ()


def test_a_virtual_host_with_most_of_our_exchanges_is_one_that_pulumi_made() -> None:
    made = [ExchangeInfo(each.name, each.type, True, False) for each in TOPOLOGY.exchanges]
    assert found(description="", exchanges=tuple(made[:-3])).refusals == ()
    assert [each.kind for each in found(description="", exchanges=tuple(made[:-4])).refusals] == ["vhost"]


def test_an_empty_virtual_host_is_free() -> None:
    predeclared = (ExchangeInfo("", "direct", True, False), ExchangeInfo("amq.topic", "topic", True, False))
    assert found(description="theirs", exchanges=predeclared).refusals == ()


def test_a_named_exchange_is_replaced_unless_others_hang_on_it() -> None:
    (refusal,) = found(exchanges=(FANOUT,)).refusals
    assert f"apply with --replace {EXCHANGE}" in refusal.sentence
    named = Allowed(replace=frozenset({EXCHANGE}))
    (change,) = found(named, exchanges=(FANOUT,)).replacements
    assert (change.action, change.name, change.why) == ("replace", EXCHANGE, "type fanout -> direct")
    ours = BindingInfo(EXCHANGE, "ml-model.digits.bulk", "queue", "digits.bulk")
    assert len(found(named, exchanges=(FANOUT,), bindings=(ours,)).replacements) == 1
    for theirs in (BindingInfo(EXCHANGE, "q", "queue", "x"), BindingInfo("x", EXCHANGE, "exchange", "y")):
        against = found(named, exchanges=(FANOUT,), bindings=(ours, theirs))
        assert against.replacements == ()
        assert "cannot be replaced while others' bindings hang on it" in against.refusals[0].sentence


def test_a_replacement_says_what_is_lost() -> None:
    full = QueueInfo("ml-model.digits.bulk", True, False, type="classic", messages=7)
    (change,) = found(Allowed(replace=frozenset({full.name})), queues=(full,)).replacements
    assert change.why == "x-queue-type classic -> quorum; 7 messages are lost"


def test_names_that_must_not_be_deleted() -> None:
    names = frozenset({"ml-model.digits.bulk", "theirs", "gone", "old"})
    queues = tuple(QueueInfo(name, True, False, type="quorum") for name in ("ml-model.digits.bulk", "theirs", "old"))
    recorded = Owned(queues=frozenset({"old"}))
    against = found(Allowed(delete=names), queues=queues, recorded=recorded)
    wrong = {refusal.name: refusal.sentence for refusal in against.refusals if "--delete" in refusal.sentence}
    assert set(wrong) == {"ml-model.digits.bulk", "theirs"}
    assert "was not made by ModelMQ" in wrong["theirs"]
