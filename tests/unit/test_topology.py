from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from modelmq.errors import ConfigError
from modelmq.retry_ladder import RUNGS_MS
from modelmq.settings import TopologySettings
from modelmq.topology import build, roles
from modelmq.topology_names import ModelRoute, control_queue, dead_letter_queue, queue_name, routing_keys, user_name
from modelmq.topology_values import Binding, Permission, Policy, Queue, Topology

DIGITS = ModelRoute("digits", ("1", "2"))
LADDER = [f"ml-retry.{delay_ms}" for delay_ms in RUNGS_MS]
SERVICE = ModelRoute("service", queue="ml-service-queue", routing_key="ml_service")


def built(*models: ModelRoute, **settings: object) -> Topology:
    return build(TopologySettings(**settings), "ml-dev", models)  # type: ignore[arg-type]


def policy(topology: Topology, name: str) -> Policy:
    return next(each for each in topology.policies if each.name == name)


def rights(topology: Topology, user: str) -> Permission:
    return next(each for each in topology.permissions if each.user == user)


def bound(topology: Topology, source: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for binding in topology.bindings:
        if binding.source == source:
            found.setdefault(binding.destination, set()).add(binding.routing_key)
    return found


def test_the_names_that_programs_were_told() -> None:
    topology = built(DIGITS)
    assert topology.vhost.name == "ml-dev"
    assert [(each.name, each.type) for each in topology.exchanges] == [
        ("ml-model-exchange", "direct"),
        ("ml-control-exchange", "fanout"),
        ("ml-reply-exchange", "direct"),
        ("ml-redeliver-exchange", "direct"),
        ("ml-retry-exchange", "headers"),
        ("ml-dead-letter-sorting-exchange", "headers"),
        ("ml-dead-letter-exchange", "topic"),
        ("ml-unrouted-exchange", "fanout"),
    ]
    assert [each.name for each in topology.queues] == [
        "ml-expired",
        "ml-unrouted",
        *LADDER,
        "ml-model.digits.interactive",
        "ml-model.digits.bulk",
        "ml-dead-letter.digits",
    ]
    assert [each.name for each in topology.users] == ["ml-gateway", "ml-client", "ml-operator", "ml-worker-default"]
    assert {each.name: each.tags for each in topology.users if each.tags} == {"ml-operator": ("monitoring",)}
    assert control_queue("default", "w1") == "ml-worker.default.w1"


def test_everything_is_durable_and_only_the_type_is_an_argument() -> None:
    topology = built(DIGITS, SERVICE)
    assert all(each.durable for each in (*topology.exchanges, *topology.queues))
    assert {tuple(queue.arguments.items()) for queue in topology.queues} == {(("x-queue-type", "quorum"),)}
    classic = built(DIGITS, queue_type="classic")
    assert {tuple(queue.arguments.items()) for queue in classic.queues} == {(("x-queue-type", "classic"),)}


def test_both_lanes_are_reached_with_and_without_version() -> None:
    expected = {
        "ml-model.digits.interactive": {"digits", "digits.1", "digits.2"},
        "ml-model.digits.bulk": {"digits.bulk", "digits.1.bulk", "digits.2.bulk"},
    }
    topology = built(DIGITS)
    assert bound(topology, "ml-model-exchange") == expected
    assert bound(topology, "ml-redeliver-exchange") == expected
    assert bound(topology, "ml-dead-letter-exchange") == {"ml-dead-letter.digits": {"digits.#"}}
    assert bound(topology, "ml-unrouted-exchange") == {"ml-unrouted": {""}}


@pytest.mark.parametrize(
    ("version", "told"),
    [((3, 10, 8), "x-first-death-reason"), ((3, 13), "x-last-death-reason"), ((4, 3), "x-last-death-reason")],
)
def test_what_expired_in_its_lane_is_sorted_out(version: tuple[int, ...], told: str) -> None:
    topology = build(TopologySettings(), "ml-dev", [DIGITS], broker_version=version)
    expired: dict[str, str | int | bool] = {"x-match": "all-with-x", told: "expired"}
    assert [each for each in topology.bindings if each.source == "ml-dead-letter-sorting-exchange"] == [
        Binding("ml-dead-letter-sorting-exchange", "ml-expired", arguments=expired)
    ]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_rung_of_the_ladder_brings_its_messages_home(queue_type: str) -> None:
    topology = built(DIGITS, queue_type=queue_type, retry_max_length=7, max_length_bytes=8)
    ways = [each for each in topology.bindings if each.source == "ml-retry-exchange"]
    assert [(each.destination, each.routing_key, each.arguments) for each in ways] == [
        (f"ml-retry.{delay_ms}", "", {"x-match": "all", "retry-rung": str(delay_ms)}) for delay_ms in RUNGS_MS
    ]
    for delay_ms in RUNGS_MS:
        rung = policy(topology, f"ml-retry.{delay_ms}")
        at_least_once = {"dead-letter-strategy": "at-least-once", "delivery-limit": 50}
        assert re.fullmatch(rung.pattern, f"ml-retry.{delay_ms}")
        assert rung.definition == {
            "message-ttl": delay_ms,
            "dead-letter-exchange": "ml-redeliver-exchange",
            "max-length": 7,
            "max-length-bytes": 8,
            "overflow": "reject-publish",
            **(at_least_once if queue_type == "quorum" else {}),
        }


def test_a_single_service_under_the_names_of_old() -> None:
    topology = built(SERVICE)
    assert queue_name(SERVICE, "interactive") == "ml-service-queue"
    assert queue_name(SERVICE, "bulk") == "ml-service-queue.bulk"
    assert bound(topology, "ml-model-exchange") == {
        "ml-service-queue": {"ml_service", "service"},
        "ml-service-queue.bulk": {"ml_service.bulk", "service.bulk"},
    }
    assert bound(topology, "ml-dead-letter-exchange") == {dead_letter_queue("service"): {"service.#", "ml_service.#"}}
    assert re.match(policy(topology, "ml-interactive").pattern, "ml-service-queue")
    assert re.match(policy(topology, "ml-bulk").pattern, "ml-service-queue.bulk")
    assert re.match(rights(topology, "ml-worker-default").read, "ml-service-queue")
    assert ("ml_service", "interactive") in routing_keys(SERVICE)


def test_rights_are_no_wider_than_the_service_needs() -> None:
    topology = built(DIGITS)
    assert rights(topology, "ml-gateway") == Permission(
        "ml-gateway", "^$", "^(ml-model-exchange|ml-control-exchange)$", "^$"
    )
    assert rights(topology, "ml-client") == Permission(
        "ml-client", r"^amq\.gen-", r"^(ml-model-exchange|ml-control-exchange)$|^amq\.gen-", r"^amq\.gen-"
    )
    assert rights(topology, "ml-operator") == Permission(
        "ml-operator", "^$", "^(ml-redeliver-exchange)$", r"^(ml-expired|ml-unrouted)$|^ml-dead-letter\."
    )
    assert rights(topology, "ml-worker-default") == Permission(
        "ml-worker-default",
        r"^ml-worker\.default\.",
        r"^(amq\.default|ml-dead-letter-exchange|ml-retry-exchange)$|^ml-worker\.default\.",
        r"^(ml-control-exchange|ml-model\.digits\.interactive|ml-model\.digits\.bulk)$|^ml-worker\.default\.",
    )


def test_in_queue_mode_replies_take_the_reply_exchange_and_no_other_way() -> None:
    topology, direct = built(DIGITS, reply_mode="queue"), built(DIGITS)
    assert rights(topology, "ml-gateway") == Permission(
        "ml-gateway",
        r"^ml-gateway\.",
        r"^(ml-model-exchange|ml-control-exchange)$|^ml-gateway\.",
        r"^(ml-reply-exchange)$|^ml-gateway\.",
    )
    assert rights(topology, "ml-client") == Permission(
        "ml-client",
        r"^amq\.gen-",
        r"^(ml-model-exchange|ml-control-exchange)$|^amq\.gen-",
        r"^(ml-reply-exchange)$|^amq\.gen-",
    )
    assert rights(topology, "ml-operator") == rights(direct, "ml-operator")
    worker = rights(topology, "ml-worker-default")
    assert worker.write == r"^(ml-reply-exchange|ml-dead-letter-exchange|ml-retry-exchange)$|^ml-worker\.default\."
    assert msgspec.structs.replace(worker, write="") == msgspec.structs.replace(
        rights(direct, "ml-worker-default"), write=""
    )
    assert msgspec.structs.replace(topology, permissions=direct.permissions) == direct


def test_one_user_per_role_reads_that_roles_queues() -> None:
    fraud = ModelRoute("fraud")
    topology = built(DIGITS, fraud, roles={"vision": ("digits",), "money": ("fraud", "fraud")})
    assert [user.name for user in topology.users if user.service == "worker"] == ["ml-worker-vision", "ml-worker-money"]
    assert [user.role for user in topology.users if user.service == "worker"] == ["vision", "money"]
    money = rights(topology, "ml-worker-money").read
    assert re.search(money, "ml-model.fraud.bulk")
    assert not re.search(money, "ml-model.digits.bulk")
    assert roles(TopologySettings(roles={"money": ("fraud", "fraud")}), [fraud]) == {"money": (fraud,)}
    assert roles(TopologySettings(), []) == {"default": ()}


def test_policies_hold_all_that_can_be_tuned() -> None:
    topology = built(DIGITS, max_length=7, max_length_bytes=8, delivery_limit=9, message_ttl_s=0.0015, bulk_ttl_s=2)
    lane = {
        "max-length": 7,
        "max-length-bytes": 8,
        "overflow": "reject-publish",
        "dead-letter-exchange": "ml-dead-letter-sorting-exchange",
        "dead-letter-strategy": "at-least-once",
        "delivery-limit": 9,
    }
    assert policy(topology, "ml-interactive").definition == lane | {"message-ttl": 2}
    assert policy(topology, "ml-bulk").definition == lane | {"message-ttl": 2000}
    assert policy(topology, "ml-own-queues").definition["overflow"] == "drop-head"
    assert policy(topology, "ml-dead-letter").definition["message-ttl"] == 604_800_000
    assert policy(topology, "ml-sorting").definition == {"alternate-exchange": "ml-dead-letter-exchange"}
    assert policy(topology, "ml-alternate").definition == {"alternate-exchange": "ml-unrouted-exchange"}


def test_what_only_quorum_queues_know_is_not_asked_of_classic_ones() -> None:
    definition = policy(built(DIGITS, queue_type="classic"), "ml-interactive").definition
    assert definition.keys() & {"dead-letter-strategy", "delivery-limit"} == set()
    assert definition["overflow"] == "reject-publish"


def test_dead_letters_outlive_being_looked_at_on_every_version() -> None:
    settings = TopologySettings()
    for version, limit in (((3, 10, 8), None), ((3, 13), None), ((4, 0, 5), -1), ((4, 3), -1)):
        topology = build(settings, "ml-dev", [DIGITS], broker_version=version)
        for name in ("ml-dead-letter", "ml-unrouted", "ml-expired"):
            assert policy(topology, name).definition.get("delivery-limit") == limit
        assert policy(topology, "ml-interactive").definition["delivery-limit"] == settings.delivery_limit


def test_environments_share_no_user() -> None:
    topology = build(TopologySettings(environment="prod"), "ml-prod", [DIGITS])
    assert [user.name for user in topology.users] == [
        "ml-gateway.prod",
        "ml-client.prod",
        "ml-operator.prod",
        "ml-worker-default.prod",
    ]
    assert user_name("worker", "dev", "a") == "ml-worker-a"


def test_the_order_of_the_models_does_not_matter() -> None:
    assert built(DIGITS, SERVICE) == built(SERVICE, DIGITS)


def test_no_models_at_all() -> None:
    assert [queue.name for queue in built().queues] == ["ml-expired", "ml-unrouted", *LADDER]


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ((DIGITS, DIGITS), 'Model "digits" is listed twice'),
        ((ModelRoute("a b"),), 'the model name "a b" must be 1 to 64 letters, digits, - and _'),
        ((ModelRoute("x" * 65),), "must be 1 to 64"),
        ((ModelRoute("a\n"),), "must be 1 to 64"),
        ((ModelRoute("a", routing_key="a.b"),), 'the routing_key "a.b" must be'),
        ((ModelRoute("a", ("v1",)),), 'the version "v1" must be a whole number'),
        ((ModelRoute("a", queue="-x"),), 'setting queue: "-x" must be 1 to 250'),
        ((ModelRoute("a", queue="x" * 251),), "must be 1 to 250"),
        ((ModelRoute("a", queue="amq.x"),), "is a name that ModelMQ itself uses"),
        ((ModelRoute("a", queue="ml-model.b.bulk"),), "is a name that ModelMQ itself uses"),
        ((ModelRoute("a", queue="ml-retry.a"),), "is a name that ModelMQ itself uses"),
        ((ModelRoute("a", queue="ml-expired"),), "is a name that ModelMQ itself uses"),
        ((ModelRoute("a", queue="ml-model-exchange"),), "is a name that ModelMQ itself uses"),
        ((ModelRoute("a", routing_key="b"), ModelRoute("b")), 'Models "a" and "b" both claim the routing key "b"'),
        ((ModelRoute("a", queue="q"), ModelRoute("b", queue="q")), 'both claim the queue "q"'),
        ((ModelRoute("a", queue="q"), ModelRoute("b", queue="q.bulk")), 'both claim the queue "q.bulk"'),
    ],
)
def test_names_that_cannot_be(models: tuple[ModelRoute, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        built(*models)


@pytest.mark.parametrize("vhost", ["", "/", "a b", "ä", "-x", "x" * 251, "a\n"])
def test_virtual_hosts_that_cannot_be(vhost: str) -> None:
    with pytest.raises(ConfigError, match=r"^broker\.vhost: .* must be 1 to 250"):
        build(TopologySettings(), vhost, [DIGITS])


@pytest.mark.parametrize(
    ("of_roles", "words"),
    [
        ({"r": ("nobody",)}, 'topology.roles: role "r" names the unknown model "nobody"; known are: digits.'),
        ({"r": ()}, 'Model "digits" is in no role, so no worker would serve it; add it to topology.roles.'),
    ],
)
def test_roles_that_cannot_be(of_roles: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        built(DIGITS, roles=of_roles)


def test_more_models_than_one_pattern_holds() -> None:
    many = [ModelRoute(f"{number:064}") for number in range(300)]
    with pytest.raises(ConfigError, match=r'Role "default" has too many models .* split it in topology\.roles'):
        built(*many)
    own = [ModelRoute(f"m{number}", queue="q" * 200 + str(number)) for number in range(100)]
    each_its_role = {f"r{number}": (f"m{number}",) for number in range(100)}
    with pytest.raises(ConfigError, match=r"Too many models \(100\) have a queue of their own"):
        built(*own, roles=each_its_role)


def test_queues_are_values() -> None:
    assert Queue("q", "quorum") in built(ModelRoute("m", queue="q")).queues


def test_the_page_names_everything() -> None:
    page = (Path(__file__).parents[2] / "docs" / "topology.md").read_text("utf-8")
    topology = built(ModelRoute("digits", ("1",)))
    named = [each.name for each in (*topology.exchanges, *topology.queues, *topology.policies)]
    named += ["ml-gateway", "ml-worker-<role>", "ml-client", "ml-operator"]
    named = [name for name in named if name not in LADDER[1:-1]]
    assert [name for name in named if f"`{name}`" not in page] == []
    keys = {binding.routing_key for binding in topology.bindings} - {""}
    assert {key for key in keys if f"`{key}`" not in page} == set()
