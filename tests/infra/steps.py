"""What the tests of a stack do and look at."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmq.broker.management import Management
from modelmq.broker.management_values import PolicyInfo
from modelmq.broker.node import RunningNode
from modelmq.provision.look import look
from modelmq.provision.plan import plan
from modelmq.provision.plan_values import Plan
from modelmq.provision.pulumi_config import parse
from modelmq.topology import build
from tests.infra.engine import ROOT, Done, Program

QUEUE = "ml-service-queue"
QUEUES = (QUEUE, f"{QUEUE}.bulk", "ml-dead-letter.ml_service", "ml-expired", "ml-unrouted")
SAME = ("preview", "--expect-no-changes")
UP = ("up", "--yes", "--skip-preview")
DESTROY = ("destroy", "--yes", "--skip-preview", "--run-program")
NOTHING = Plan()


def drift(program: Program, vhost: str, admin: Management) -> Plan:
    """What our own plan would do to the broker, with the passwords that the stack tells."""
    settings = parse(config(program), "dev")
    topology = build(settings.settings.topology, vhost, settings.models, broker_version=admin.overview().version)
    return plan(topology, look(vhost, admin), passwords(program))


def told_by_our_cli(program: Program, broker: RunningNode, folder: Path) -> Done:
    """`modelmq topology drift` with the stack's models, each a folder, and the stack's passwords, each a file."""
    stack = parse(config(program), "dev")
    for model in stack.models:
        for version in model.versions:
            shutil.copytree(ROOT / "examples/models/sentiment/1", folder / "models" / model.name / version)
        own = {"queue": model.queue, "routing_key": model.routing_key}
        lines = [f'{key} = "{value}"\n' for key, value in own.items() if value]
        (folder / "models" / model.name / "model.toml").write_text("".join(lines))
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for user, password in {**passwords(program), "admin": broker.admin_password}.items():
        (secrets / user).touch(0o600)
        (secrets / user).write_text(password)
    given = {
        "broker.management_url": broker.management_url,
        "broker.admin_username": broker.admin_username,
        "broker.admin_password_file": secrets / "admin",
        "topology.environment": stack.settings.topology.environment,
    }
    flags = " ".join(f"--set {key}={value}" for key, value in given.items())
    return program.sh(f"modelmq topology drift --models {folder}/models --state-dir {folder} {flags}", status=None)


def passwords(program: Program) -> dict[str, str]:
    """Of the services' users, by name, as the stack's outputs tell them."""
    urls = program.outputs()["amqp_urls"].values()
    return dict(re.search(r"//([^:]+):([^@]+)@", url).groups() for url in urls)  # type: ignore[union-attr]


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
