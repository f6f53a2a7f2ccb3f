"""Plans in a broker made of values: whatever is there, one plan carried out leaves nothing to do."""

from __future__ import annotations

import random
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
from modelmq.provision.plan_values import Allowed, Change, Observed, Owned, Plan, Removal, key_of
from modelmq.settings import TopologySettings
from modelmq.topology import build
from modelmq.topology_names import ModelRoute
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
        if change.action == "replace":
            observed = _deleted(observed, Removal(change.kind, change.name))
        observed = _written(observed, change.wanted, passwords)
    return observed


def executed(observed: Observed, made: Plan, passwords: dict[str, str]) -> Observed:
    """What a broker does with a whole plan."""
    observed = _recorded(observed, made.record_first)
    observed = carried_out(observed, made.changes, passwords)
    for removal in made.removals:
        observed = _deleted(observed, removal)
    return _recorded(observed, made.record_last)


def _recorded(observed: Observed, record: Owned | None) -> Observed:
    return observed if record is None else msgspec.structs.replace(observed, recorded=record)


def _deleted(observed: Observed, removal: Removal) -> Observed:
    """Bindings go with what they are bound to; users take their rights along."""

    def without(field: str, keep: Any) -> None:
        nonlocal observed
        kept = tuple(each for each in getattr(observed, field) if keep(each))
        observed = msgspec.structs.replace(observed, **{field: kept})

    name, field = removal.name, {"policy": "policies"}.get(removal.kind, f"{removal.kind}s")
    if removal.kind == "binding":
        without(field, lambda each: each != removal.binding)
    elif removal.kind == "permission":
        without(field, lambda each: each.user != name)
    else:
        without(field, lambda each: each.name != name)
    if removal.kind == "user":
        without("permissions", lambda each: each.user != name)
    if removal.kind in ("queue", "exchange"):
        without("bindings", lambda each: name not in (each.source, each.destination))
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


EMPTY = Observed((3, 10, 8), ADMIN, vhosts=(VhostInfo("/"),), users=(UserInfo(ADMIN, "administrator"),))


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


LATER = ("binding", "queue", "exchange", "policy", "permission", "user")
EARLIER = ("vhost", "user", "permission", "policy", "exchange", "queue", "binding")
EVERYTHING = st.booleans().map(lambda remove: Allowed(remove=remove))


@st.composite
def recorded(draw: st.DrawFn) -> tuple[Topology, Observed]:
    """A broker on which a former topology was applied and recorded, worn since, with things of others beside it."""
    before, now = draw(topologies()), draw(topologies())
    passwords = passwords_of(before)
    observed = executed(EMPTY, plan(before, EMPTY, passwords, Allowed(remove=True)), passwords)
    dice = random.Random(draw(st.integers(0, 2**32)))  # hundreds of draws from hypothesis take seconds
    for field in LISTS:
        kept = tuple(each for each in getattr(observed, field) if dice.random() < 0.9)
        observed = msgspec.structs.replace(observed, **{field: kept})
    queues = tuple(
        msgspec.structs.replace(each, messages=dice.choice([0, 0, 3]), consumers=dice.choice([0, 0, 1]))
        for each in observed.queues
    )
    names = [*(each.name for each in queues), "theirs"]
    others = tuple(
        BindingInfo(dice.choice(["ml-model-exchange", "theirs"]), dice.choice(names), "queue", f"by hand {number}")
        for number in range(dice.randrange(4))
    )
    return now, msgspec.structs.replace(
        observed,
        queues=(*queues, QueueInfo("theirs", True, False, False)),
        exchanges=(*observed.exchanges, ExchangeInfo("theirs", "topic", True, False)),
        policies=(*observed.policies, PolicyInfo("theirs", "^theirs$", "queues", {"max-length": 1})),
        users=(*observed.users, UserInfo("theirs")),
        permissions=(*observed.permissions, PermissionInfo("theirs", "^theirs$", "", "")),
        bindings=(*observed.bindings, *others),
    )


@given(recorded(), EVERYTHING)
def test_a_whole_plan_that_was_carried_out_leaves_nothing_to_do(
    case: tuple[Topology, Observed], allowed: Allowed
) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    made = plan(topology, observed, passwords, allowed)
    assert made.refusals == ()
    after = executed(observed, made, passwords)
    again = plan(topology, after, passwords, allowed)
    assert again.empty
    assert (again.record_first, again.record_last) == (None, None)


@given(recorded())
def test_only_what_is_recorded_and_unused_is_ever_deleted(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    owned = observed.recorded
    assert owned is not None
    used = {queue.name for queue in observed.queues if queue.messages or queue.consumers}
    for removal in plan(topology, observed, passwords_of(topology), Allowed(remove=True)).removals:
        if removal.binding is not None:
            assert key_of(removal.binding) in owned.bindings - set(map(key_of, topology.bindings))
        else:
            mine = {"queue": owned.queues, "exchange": owned.exchanges, "policy": owned.policies}
            assert removal.name in mine.get(removal.kind, owned.users)
            assert removal.name not in used
            wanted = (*topology.queues, *topology.exchanges, *topology.policies, *topology.users)
            assert removal.name not in {each.name for each in wanted}


@given(recorded())
def test_without_a_record_nothing_is_deleted(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    made = plan(
        topology, msgspec.structs.replace(observed, recorded=None), passwords_of(topology), Allowed(remove=True)
    )
    assert (made.removals, made.kept) == ((), ())


@given(recorded(), st.data())
def test_the_order_is_one_in_which_everything_can_be_done(case: tuple[Topology, Observed], data: st.DataObject) -> None:
    topology, observed = case
    made = plan(topology, observed, passwords_of(topology), Allowed(remove=True))
    written = [EARLIER.index(change.kind) for change in made.changes]
    deleted = [LATER.index(removal.kind) for removal in made.removals]
    assert (written, deleted) == (sorted(written), sorted(deleted))


@given(recorded(), st.data())
def test_what_an_interrupted_plan_made_is_never_forgotten(case: tuple[Topology, Observed], data: st.DataObject) -> None:
    """Whatever the next topology is, what was made and recorded is deleted with it or is in it."""
    topology, observed = case
    passwords = passwords_of(topology)
    made = plan(topology, observed, passwords, Allowed(remove=True))
    at = data.draw(st.integers(0, len(made.changes)))
    halfway = carried_out(_recorded(observed, made.record_first), made.changes[:at], passwords)
    nothing = build(TopologySettings(), "ml-dev", [])
    after = executed(
        halfway, plan(nothing, halfway, passwords_of(nothing), Allowed(remove=True)), passwords_of(nothing)
    )
    left = {queue.name for queue in after.queues if not queue.messages and not queue.consumers}
    assert left == {queue.name for queue in nothing.queues} - {
        q.name for q in after.queues if q.messages or q.consumers
    } | {"theirs"}


@given(recorded())
def test_conflicts_that_are_named_are_replaced(case: tuple[Topology, Observed]) -> None:
    topology, observed = case
    passwords = passwords_of(topology)
    queues = tuple(msgspec.structs.replace(each, type="classic", arguments={}) for each in observed.queues)
    classic = msgspec.structs.replace(observed, queues=queues)
    names = frozenset(queue.name for queue in topology.queues) & {queue.name for queue in queues}
    made = plan(topology, classic, passwords, Allowed(replace=names))
    refused = {refusal.name for refusal in made.refusals}
    by_hand = {each.destination for each in observed.bindings if each.routing_key.startswith("by hand")}
    assert refused == names & by_hand
    if not refused:
        assert plan(topology, executed(classic, made, passwords), passwords).empty


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
