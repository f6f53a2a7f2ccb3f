"""What the tests of a stack do and look at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from modelmq.broker.management import Management
from modelmq.broker.management_values import PolicyInfo
from modelmq.provision.apply import observe
from modelmq.provision.plan import Plan, plan
from modelmq.provision.pulumi_config import parse
from modelmq.topology import build
from tests.infra.engine import Done, Program

QUEUE = "ml-service-queue"
QUEUES = (QUEUE, f"{QUEUE}.bulk", "ml-dead-letter.ml_service", "ml-expired", "ml-unrouted")
SAME = ("preview", "--expect-no-changes")
UP = ("up", "--yes", "--skip-preview")
DESTROY = ("destroy", "--yes", "--skip-preview", "--run-program")
NOTHING = Plan((), ())


def drift(program: Program, vhost: str, admin: Management) -> Plan:
    """What our own plan would do to the broker, with the passwords that the stack tells."""
    settings = parse(config(program), "dev")
    topology = build(settings.settings.topology, vhost, settings.models, broker_version=admin.overview().version)
    urls = program.outputs()["amqp_urls"].values()
    passwords = dict(re.search(r"//([^:]+):([^@]+)@", url).groups() for url in urls)  # type: ignore[union-attr]
    return plan(topology, observe(vhost, admin), passwords)


def config(program: Program) -> dict[str, str]:
    """The stack's config, decrypted, by key."""
    found = json.loads(program.sh("pulumi config --json --show-secrets").output)
    prefix = "modelmq:"
    return {key.removeprefix(prefix): each["value"] for key, each in found.items() if key.startswith(prefix)}


@contextmanager
def changed(program: Program, key: str, value: object) -> Iterator[None]:
    """A key of the stack's config, for a while."""
    program.config(key, value)
    try:
        yield
    finally:
        program.config(key)


def updated(done: Done) -> set[str]:
    """The resources that an update changed in place, by kind and name."""
    return set(re.findall(r"^ ~\s+rabbitmq:index:(\w+ \S+) updated", done.output, re.MULTILINE))


def policy(admin: Management, vhost: str, name: str) -> PolicyInfo:
    return next(each for each in admin.policies(vhost) if each.name == name)


def publish(admin: Management, vhost: str, text: str) -> None:
    """A request to the service's queue."""
    body = {
        "properties": {"delivery_mode": 2},
        "routing_key": "ml_service",
        "payload": text,
        "payload_encoding": "string",
    }
    answer = admin._send("POST", "publish", body, "exchanges", vhost, "ml-model-exchange", "publish")
    assert json.loads(answer.body) == {"routed": True}


def take(admin: Management, vhost: str) -> list[str]:
    """All messages of the service's queue, which is empty after it."""
    body = {"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto"}
    answer = admin._send("POST", "get", body, "queues", vhost, QUEUE, "get")
    return [message["payload"] for message in json.loads(answer.body)]


def is_clean(vhost: str, admin: Management) -> None:
    """Neither the virtual host nor a user of its environment is left."""
    environment = vhost.removeprefix("ml-")
    assert vhost not in {each.name for each in admin.vhosts()}
    assert [user.name for user in admin.users() if user.name.endswith(f".{environment}")] == []
