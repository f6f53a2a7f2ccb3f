"""Plans in a broker made of values: whatever is there, one plan carried out leaves nothing to do."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from modelmq.broker.management_values import (
    BindingInfo,
    ExchangeInfo,
    PermissionInfo,
    PolicyInfo,
    QueueInfo,
    UserInfo,
    VhostInfo,
)
from modelmq.provision.passwords import matches, password_hash
from modelmq.provision.plan import plan
from modelmq.provision.plan_values import Change, Observed
from modelmq.settings import TopologySettings
from modelmq.topology import ModelRoute, build
from modelmq.topology_values import Binding, Exchange, Permission, Policy, Queue, Topology, User, Vhost

NAMES = st.lists(st.sampled_from(["a", "b", "a_b", "c-1"]), unique=True, max_size=3)
TYPES = st.sampled_from(["quorum", "classic"])
LISTS = ("users", "permissions", "policies", "exchanges", "queues", "bindings")
ADMIN = "admin"


@st.composite
def topologies(draw: st.DrawFn, queue_type: str = "quorum") -> Topology:
    settings = TopologySettings(queue_type=queue_type, max_length=draw(st.integers(1, 3)))  # type: ignore[arg-type]
    models = [
        ModelRoute(
            name,
            versions=draw(st.sampled_from([(), ("1",), ("1", "2")])),
            queue=draw(st.sampled_from([None, f"q{name}"])),
        )
        for name in draw(NAMES)
    ]
    return build(settings, "ml-dev", models)


def passwords_of(topology: Topology) -> dict[str, str]:
    return {user.name: f"secret-{user.name}" for user in topology.users}


def carried_out(observed: Observed, changes: tuple[Change, ...], passwords: dict[str, str]) -> Observed:
    """What a broker does with these writes."""
    for change in changes:
        observed = _written(observed, change.wanted, passwords)
    return observed


def _written(observed: Observed, wanted: Any, passwords: dict[str, str]) -> Observed:  # noqa: PLR0911 - one per kind
    def put(field: str, value: Any, same: Any = lambda one, other: one.name == other.name) -> Observed:
        others = tuple(each for each in getattr(observed, field) if not same(each, value))
        return msgspec.structs.replace(observed, **{field: (*others, value)})

    match wanted:
        case Vhost():
            # The worst case: its creator's rights are not there yet, or it was created by somebody else.
            return msgspec.structs.replace(
                observed, vhosts=(*observed.vhosts, VhostInfo(wanted.name, wanted.description))
            )
        case User():
            hashed = password_hash(passwords[wanted.name], b"1234")
            return put("users", UserInfo(wanted.name, ",".join(wanted.tags), hashed))
        case Permission():
            rights = PermissionInfo(wanted.user, wanted.configure, wanted.write, wanted.read)
            return put("permissions", rights, lambda one, other: one.user == other.user)
        case Policy():
            value = PolicyInfo(wanted.name, wanted.pattern, wanted.apply_to, dict(wanted.definition), wanted.priority)
            return put("policies", value)
        case Exchange():
            return put("exchanges", ExchangeInfo(wanted.name, wanted.type, True, False))
        case Queue():
            return put("queues", QueueInfo(wanted.name, True, False, False, wanted.type, dict(wanted.arguments)))
        case Binding():
            value = BindingInfo(wanted.source, wanted.destination, "queue", wanted.routing_key, dict(wanted.arguments))
            return put("bindings", value, lambda one, other: one == other)
    raise AssertionError(wanted)


EMPTY = Observed((3, 10, 8), ADMIN, (VhostInfo("/"),), users=(UserInfo(ADMIN, "administrator"),))


@st.composite
def worn(draw: st.DrawFn) -> tuple[Topology, Observed]:
    """A topology, and a broker that had another one, of which some is gone and some was changed by hand."""
    before, now = draw(topologies()), draw(topologies())
    observed = EMPTY
    if draw(st.booleans()):
        observed = carried_out(EMPTY, plan(before, EMPTY, passwords_of(before)).changes, passwords_of(before))
        for field in LISTS:
            kept = tuple(each for each in getattr(observed, field) if draw(st.integers(0, 9)) > 0)
            observed = msgspec.structs.replace(observed, **{field: tuple(draw(_drifted(each)) for each in kept)})
    return now, observed


def _drifted(each: Any) -> st.SearchStrategy[Any]:
    match each:
        case UserInfo():
            others = [
                msgspec.structs.replace(each, tags="policymaker"),
                msgspec.structs.replace(each, password_hash="x"),
            ]
        case PermissionInfo():
            others = [msgspec.structs.replace(each, read=".*"), msgspec.structs.replace(each, configure=".*")]
        case PolicyInfo():
            definition = {**each.definition, "max-length": 77, "expires": 1}
            others = [msgspec.structs.replace(each, definition=definition), msgspec.structs.replace(each, priority=0)]
        case _:
            others = []
    return st.sampled_from([each] * 8 + others)


@given(worn())
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    made = plan(topology, observed, passwords)
    assert made.refusals == ()
    after = carried_out(observed, made.changes, passwords)
    assert plan(topology, after, passwords).changes == ()


@given(worn(), st.integers(0, 100))
def test_an_interrupted_plan_is_finished_by_the_next(case: tuple[Topology, Observed], at: int) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    made = plan(topology, observed, passwords)
    halfway = carried_out(observed, made.changes[:at], passwords)
    rest = plan(topology, halfway, passwords)
    assert [change.wanted for change in rest.changes] == [change.wanted for change in made.changes[at:]]
    assert plan(topology, carried_out(halfway, rest.changes, passwords), passwords).changes == ()


@given(worn())
def test_nothing_is_written_that_is_right_already(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    for change in plan(topology, observed, passwords).changes:
        assert _written(observed, change.wanted, passwords) != observed


@given(worn())
def test_what_others_made_stays_as_it_is(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    after = carried_out(observed, plan(topology, observed, passwords).changes, passwords)
    mine = {each.name for each in (*topology.users, *topology.policies, *topology.exchanges, *topology.queues)}
    for field in ("users", "policies", "exchanges", "queues"):
        before = {each for each in map(str, getattr(observed, field)) if not any(repr(name) in each for name in mine)}
        assert before <= set(map(str, getattr(after, field)))
    assert {str(each) for each in observed.bindings} <= {str(each) for each in after.bindings}
    assert set(observed.vhosts) <= set(after.vhosts)


@given(topologies("classic"), st.data())
def test_a_queue_of_another_type_is_refused(topology: Topology, data: st.DataObject) -> None:
    passwords = passwords_of(topology)
    after = carried_out(EMPTY, plan(topology, EMPTY, passwords).changes, passwords)
    victim = data.draw(st.sampled_from(topology.queues))
    queues = tuple(
        msgspec.structs.replace(each, type="quorum", arguments={"x-queue-type": "quorum"})
        if each.name == victim.name
        else each
        for each in after.queues
    )
    made = plan(topology, msgspec.structs.replace(after, queues=queues), passwords)
    assert [refusal.name for refusal in made.refusals] == [victim.name]
    assert made.changes == ()


@given(st.text(max_size=50), st.text(max_size=50), st.binary(min_size=4, max_size=4))
def test_a_stored_password_matches_itself_only(password: str, other: str, salt: bytes) -> None:
    stored = password_hash(password, salt)
    assert matches(password, stored)
    assert matches(other, stored) == (other == password)
    assert not matches(password, stored, "rabbit_password_hashing_md5")
    assert not matches(password, stored[:-4])
