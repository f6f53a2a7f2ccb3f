"""A stack's config: the settings' own keys, and one sentence for each mistake."""

from __future__ import annotations

import pytest

from modelmq.errors import ConfigError
from modelmq.provision.pulumi_config import StackConfig, parse
from modelmq.provision.pulumi_values import service_key
from modelmq.topology import build
from modelmq.topology_names import ModelRoute

ADMIN = {"broker.admin_username": "admin", "broker.admin_password": "hush-hush"}


def test_without_more_than_an_administrator_it_is_the_original_service() -> None:
    config = parse(ADMIN, "prod")
    assert config.models == (ModelRoute("ml_service", ("1",), queue="ml-service-queue", routing_key="ml_service"),)
    assert config.settings.topology.environment == "prod"
    assert config.settings.broker.vhost == "ml-prod"


def test_keys_are_those_of_the_settings() -> None:
    config = parse(
        ADMIN
        | {
            "broker.management_url": "https://rabbit-1:15671/",
            "broker.tls": "true",
            "topology.environment": "blue",
            "topology.max_length": "500",
            "topology.roles": '{"vision": ["digits"]}',
            "models": '[{"name": "digits", "versions": ["1"]}]',
            "allow_delete": '["ml-model.digits.bulk"]',
            "passwords": '{"ml-client.blue": "hush"}',
            "broker_version": "4.3",
        },
        "prod",
    )
    assert config.settings.topology.max_length == 500
    assert config.settings.topology.roles == {"vision": ("digits",)}
    assert config.settings.broker.vhost == "ml-blue"
    assert config.models == (ModelRoute("digits", ("1",)),)
    assert config.allow_delete == {"ml-model.digits.bulk"}
    assert config.broker_version == (4, 3)


@pytest.mark.parametrize(
    ("config", "hosts"),
    [
        ({"broker.management_url": "http://rabbit-1:15672"}, ("rabbit-1:5672",)),
        ({"broker.management_url": "https://rabbit-1:15671", "broker.tls": "true"}, ("rabbit-1:5671",)),
        ({"broker.management_url": "http://[::1]:15672"}, ("[::1]:5672",)),
        ({"broker.management_url": "http://rabbit-1:15672", "broker.hosts": "a:1,b:2"}, ("a:1", "b:2")),
    ],
)
def test_rabbitmq_is_where_its_management_api_is_unless_told(config: dict[str, str], hosts: tuple[str, ...]) -> None:
    assert parse(ADMIN | config, "dev").settings.broker.hosts == hosts


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"endpoint": "http://x"}, r"There is no stack config endpoint for ModelMQ: it takes models, .*\.$"),
        ({"gateway.port": "1"}, r"There is no stack config gateway.port for ModelMQ"),
        ({"topology.max_lenght": "1"}, r"no setting topology.max_lenght for the stack config; did you mean"),
        ({"topology.max_length": "many"}, r"^stack config for topology.max_length: .*whole number.*, not \"many\"\.$"),
        ({"topology.environment": "a/b"}, r"stack config for topology.environment: .*letters, digits.*\"a/b\"\.$"),
        ({"broker.management_url": "rabbit-1:15672"}, r"stack config for broker.management_url: .*like http"),
        ({"models": "digits"}, r'^stack config for models: it must be a list like \[{"name": "digits"'),
        ({"models": '[{"nam": "digits"}]'}, r"^stack config for models: it must be .*missing required field `name`"),
        ({"allow_delete": '"ml-expired"'}, r"^stack config for allow_delete: it must be a list of names"),
        ({"passwords": '["hush"]'}, r"^stack config for passwords: it must be a table of users"),
        ({"broker_version": "4"}, r'^stack config for broker_version: it must be like "3.10"'),
        (
            {"broker.admin_password": ""},
            r"^There is no stack config for broker.admin_password: run pulumi config set --",
        ),
    ],
)
def test_a_mistake_is_one_sentence(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        parse(ADMIN | config, "dev")
    assert "\n" not in refused.value.message
    assert "hush" not in refused.value.message


@pytest.mark.parametrize("name", ["a/b", "a@b", "a b", ""])
@pytest.mark.parametrize("field", ["name", "queue", "routing_key"])
def test_names_that_the_provider_would_take_apart_are_refused(name: str, field: str) -> None:
    model = {"name": "digits", "queue": "q", "routing_key": "k", field: name}
    config = parse(ADMIN | {"models": f"[{_json(model)}]"}, "dev")
    with pytest.raises(ConfigError, match=r"must be") as refused:
        build(config.settings.topology, config.settings.broker.vhost, config.models)
    assert "\n" not in refused.value.message


def test_secrets_are_not_shown() -> None:
    config = parse(ADMIN | {"passwords": '{"ml-client": "hush"}'}, "dev")
    assert isinstance(config, StackConfig)
    assert "hush" not in repr(config)


def _json(model: dict[str, str]) -> str:
    pairs = ", ".join(f'"{key}": "{value}"' for key, value in model.items())
    return "{" + pairs + "}"


def test_one_key_gives_a_service_a_second_user() -> None:
    config = parse(ADMIN | {"topology.generations": '{"gateway": [1, 2], "worker_default": [3]}'}, "dev")
    users = build(config.settings.topology, "ml-dev", config.models).users
    assert [user.name for user in users] == [
        "ml-gateway",
        "ml-gateway~2",
        "ml-client",
        "ml-operator",
        "ml-worker-default~3",
    ]
    # What the outputs tell of a service is its last user.
    assert {service_key(user): user.name for user in users}["gateway"] == "ml-gateway~2"
