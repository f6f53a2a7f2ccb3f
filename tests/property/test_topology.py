"""The topology of any legal set of models: complete, without collisions, and no right wider than its names."""

from __future__ import annotations

import re
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from modelmq.messages import LANES, parse_routing_key
from modelmq.settings import TopologySettings
from modelmq.topology import build, roles
from modelmq.topology_names import ModelRoute, control_queue, queue_name, routing_keys
from modelmq.topology_values import Topology

# Few letters, so that names nearly meet: one is the beginning of another, `_` for `.`, an alias that is a model.
NAMES = st.text("ab_-1", min_size=1, max_size=4) | st.sampled_from(["bulk", "interactive", "ml-model", "amq", "x" * 64])
VERSIONS = st.lists(st.integers(0, 12).map(str), unique=True, max_size=3).map(tuple)
QUEUES = st.text("ab.-_q", max_size=5).map("q{}".format)
SETTINGS = st.fixed_dictionaries(
    {
        "environment": st.sampled_from(["dev", "test", "prod", "a", "gateway"]),
        "reply_mode": st.sampled_from(["direct", "queue"]),
        "queue_type": st.sampled_from(["quorum", "classic"]),
        "max_length": st.integers(1, 10**7),
        "dead_letter_ttl_s": st.floats(0.001, 10**6),
    }
)


@st.composite
def legal(draw: st.DrawFn) -> tuple[TopologySettings, tuple[ModelRoute, ...]]:
    """Models as the rules allow them, some in roles."""
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    aliases = draw(st.lists(NAMES.filter(lambda name: name not in names), unique=True, max_size=2))
    queues = draw(st.lists(QUEUES, unique=True, max_size=2))
    lanes = [name for queue in queues for name in (queue, f"{queue}.bulk")]
    queues = queues if len(lanes) == len(set(lanes)) else queues[:1]
    models = tuple(
        ModelRoute(
            name,
            draw(VERSIONS),
            queue=queues[number] if number < len(queues) else None,
            routing_key=aliases[number] if number < len(aliases) else draw(st.sampled_from([None, name])),
        )
        for number, name in enumerate(names)
    )
    settings = draw(SETTINGS)
    if models and draw(st.booleans()):
        second = draw(st.lists(st.sampled_from(names)))
        settings["roles"] = {"all": tuple(names), "a": tuple(second)}
    return TopologySettings(**settings), models


def built(case: tuple[TopologySettings, tuple[ModelRoute, ...]]) -> Topology:
    settings, models = case
    return build(settings, "ml-any", models)


def matches(pattern: str, name: str) -> bool:
    """As RabbitMQ does it, which looks anywhere in the name."""
    return re.search(pattern, name) is not None


def alternatives(pattern: str) -> list[str]:
    """The pattern cut at the bars outside of brackets."""
    parts, depth = [""], 0
    for letter in pattern:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def names_on_the_broker(topology: Topology) -> list[str]:
    own = [control_queue(user.role, "w") for user in topology.users if user.service == "worker"]
    others = ["amq.default", "amq.topic", "amq.gen-xyz", "ml-gateway.g", "mine", "ml-model.other.interactive", ""]
    return [*(each.name for each in (*topology.exchanges, *topology.queues)), *own, *others]


@given(legal())
def test_any_legal_set_of_models_has_both_lanes_and_a_place_for_its_dead(
    case: tuple[TopologySettings, tuple[ModelRoute, ...]],
) -> None:
    topology = built(case)
    queues = {queue.name for queue in topology.queues}
    for model in case[1]:
        assert {queue_name(model, lane) for lane in LANES} | {f"ml-dead-letter.{model.name}"} <= queues
        for key, lane in routing_keys(model):
            route = parse_routing_key(key)
            assert route is not None
            assert route.lane == lane
            for exchange in ("ml-model-exchange", "ml-redeliver-exchange"):
                targets = [b.destination for b in topology.bindings if (b.source, b.routing_key) == (exchange, key)]
                assert targets == [queue_name(model, lane)]


@given(legal())
def test_no_two_objects_collide(case: tuple[TopologySettings, tuple[ModelRoute, ...]]) -> None:
    topology = built(case)
    # Permissions know names only, so a queue may not be called like an exchange either.
    names = [each.name for each in (*topology.exchanges, *topology.queues)]
    assert len(names) == len(set(names))
    for group in (topology.users, topology.policies):
        assert len({each.name for each in group}) == len(group)
    bindings = [(b.source, b.destination, b.routing_key, str(b.arguments)) for b in topology.bindings]
    assert len(bindings) == len(set(bindings))
    assert {permission.user for permission in topology.permissions} == {user.name for user in topology.users}
    assert {name for b in topology.bindings for name in (b.source, b.destination)} <= set(names)


@given(legal())
def test_every_pattern_is_anchored(case: tuple[TopologySettings, tuple[ModelRoute, ...]]) -> None:
    topology = built(case)
    patterns = [policy.pattern for policy in topology.policies]
    for permission in topology.permissions:
        patterns += [permission.configure, permission.write, permission.read]
    for pattern in patterns:
        for part in alternatives(pattern):
            assert part.startswith("^")
            # Open at its end only where it is a prefix, and then up to a delimiter.
            assert part.endswith(("$", r"\.", r"gen-", r"gen-)"))


@given(legal())
def test_a_worker_reads_exactly_its_models(case: tuple[TopologySettings, tuple[ModelRoute, ...]]) -> None:
    topology = built(case)
    by_role = roles(*case)
    for user in topology.users:
        if user.service != "worker":
            continue
        permission = next(each for each in topology.permissions if each.user == user.name)
        own = control_queue(user.role, "w")
        queues = {queue_name(model, lane) for model in by_role[user.role] for lane in LANES}
        names = names_on_the_broker(topology)
        assert {name for name in names if matches(permission.read, name)} == queues | {own, "ml-control-exchange"}
        assert {name for name in names if matches(permission.configure, name)} == {own}
        replies = "ml-reply-exchange" if case[0].reply_mode == "queue" else "amq.default"
        write = {own, replies, "ml-dead-letter-exchange", "ml-retry-exchange"}
        assert {name for name in names if matches(permission.write, name)} == write


@given(legal())
def test_nobody_but_the_provisioner_configures_what_lasts(
    case: tuple[TopologySettings, tuple[ModelRoute, ...]],
) -> None:
    topology = built(case)
    lasting = [each.name for each in (*topology.exchanges, *topology.queues)]
    for permission in topology.permissions:
        assert not [name for name in lasting if matches(permission.configure, name)]
        # What is published by everybody goes through an exchange: no queue is written to by name.
        assert not {queue.name for queue in topology.queues if matches(permission.write, queue.name)}


@given(legal())
def test_every_queue_is_bounded_by_exactly_one_policy(case: tuple[TopologySettings, tuple[ModelRoute, ...]]) -> None:
    topology = built(case)
    policies = [policy for policy in topology.policies if policy.apply_to == "queues"]
    own = [name for name in names_on_the_broker(topology) if name.startswith(("ml-worker.", "ml-gateway.", "amq.gen-"))]
    for name in (*(queue.name for queue in topology.queues), *own):
        found = [policy for policy in policies if matches(policy.pattern, name)]
        assert len(found) == 1, name
        assert {"max-length", "max-length-bytes", "overflow"} <= found[0].definition.keys()
        if "dead-letter-exchange" in found[0].definition and case[0].queue_type == "quorum":
            assert found[0].definition["dead-letter-strategy"] == "at-least-once"
            assert found[0].definition["overflow"] == "reject-publish"
    for lane in LANES:
        pattern = next(policy.pattern for policy in policies if policy.name == f"ml-{lane}")
        lanes = {queue_name(model, lane) for model in case[1]}
        others = {"ml-model.other.interactive" if lane == "interactive" else ""} - {""}
        assert {name for name in names_on_the_broker(topology) if matches(pattern, name)} == lanes | others


@given(legal(), st.randoms(use_true_random=False))
def test_a_pure_function_of_the_set(case: tuple[TopologySettings, tuple[ModelRoute, ...]], random: object) -> None:
    settings, models = case
    shuffled = list(models)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert build(settings, "ml-any", shuffled) == built(case)


@given(st.lists(st.sampled_from(["dev", "test", "prod", "gateway", "a"]), min_size=2, max_size=3, unique=True))
def test_environments_share_no_user(environments: list[str]) -> None:
    models = (ModelRoute("a"),)
    users = [
        {user.name for user in build(TopologySettings(environment=each), f"ml-{each}", models).users}
        for each in environments
    ]
    assert all(one.isdisjoint(other) for one, other in combinations(users, 2))
