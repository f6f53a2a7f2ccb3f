from __future__ import annotations

import msgspec
import pytest
from rich.pretty import pretty_repr

from modelmq.errors import ConfigError
from modelmq.settings import CATALOG, BrokerSettings, Settings, load, split_host


def refused(text: str = "", environ: dict[str, str] | None = None, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, "modelmq.toml", environ or {}, flags or {})
    return caught.value.message


def test_nothing_given_is_the_defaults() -> None:
    assert load("", "modelmq.toml", {}, {}) == Settings()


def test_flags_win_over_environment_over_file_over_default() -> None:
    file, environ, flags = "[gateway]\nport = 1", {"MODELMQ_GATEWAY_PORT": "2"}, {"gateway.port": 3}
    assert load("", "f", {}, {}).gateway.port == 8000
    assert load(file, "f", {}, {}).gateway.port == 1
    assert load(file, "f", environ, {}).gateway.port == 2
    assert load(file, "f", environ, flags).gateway.port == 3
    assert load(file, "f", environ, {"gateway.port": None}).gateway.port == 2


def test_sources_are_merged_key_by_key() -> None:
    settings = load("[gateway]\nport = 1\nhost = 'a'", "f", {"MODELMQ_GATEWAY_HOST": "b"}, {"log.level": "debug"})
    assert (settings.gateway.port, settings.gateway.host, settings.log.level) == (1, "b", "debug")


def test_a_defaults_record_agrees_with_its_own_rules() -> None:
    for setting in CATALOG.values():
        assert msgspec.convert(msgspec.to_builtins(setting.default), setting.type) == setting.default, setting.key


def test_every_setting_says_what_it_is_and_what_it_expects() -> None:
    for setting in CATALOG.values():
        assert setting.meaning.endswith("."), setting.key
        assert setting.expected, setting.key


def test_every_password_is_known_to_be_a_secret() -> None:
    assert {key for key in CATALOG if key.endswith("password")} == {k for k, s in CATALOG.items() if s.secret}


@pytest.mark.parametrize("shown", [repr, str, pretty_repr], ids=["repr", "str", "rich"])
def test_passwords_are_hidden_in_every_form_of_print(shown) -> None:
    broker = BrokerSettings(password="geheim1", admin_password="geheim2", password_file="a/file")
    for value in (broker, Settings(broker=broker)):
        text = shown(value)
        assert "geheim" not in text
        assert "***" in text
        assert "a/file" in text


def test_an_environment_names_its_own_virtual_host() -> None:
    assert load("[topology]\nenvironment = 'prod'", "f", {}, {}).broker.vhost == "ml-prod"
    settings = load("[topology]\nenvironment = 'prod'\n[broker]\nvhost = 'mine'", "f", {}, {})
    assert settings.broker.vhost == "mine"


def test_a_password_file_and_a_password_beside_it_contradict() -> None:
    message = refused("[broker]\npassword = 'x'\npassword_file = 'y'")
    assert message == "modelmq.toml, line 3: set either broker.password or broker.password_file, not both."


def test_a_password_from_a_stronger_source_replaces_a_file_from_a_weaker_one() -> None:
    settings = load("[broker]\npassword_file = 'y'", "f", {"MODELMQ_BROKER_PASSWORD": "x"}, {})
    assert (settings.broker.password, settings.broker.password_file) == ("x", "")
    settings = load("[broker]\npassword = 'y'", "f", {}, {"broker.password_file": "x"})
    assert (settings.broker.password, settings.broker.password_file) == ("", "x")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[broker]\nhosts = ['a']", 2, 'broker.hosts: "a" is not of the form host:port'),
        ("[broker]\nhosts = []", 2, "must be a list of at least one"),
        ("[broker]\ntls = true\ncert_file = 'c'", 3, "cert_file needs broker.key_file beside it"),
        ("[broker]\ntls = true\nkey_file = 'c'", 3, "key_file needs broker.cert_file beside it"),
        ("[broker]\nca_file = 'c'", 2, "ca_file has no effect without broker.tls = true"),
        ("[broker]\nauth = 'external'", 2, 'auth = "external" needs broker.tls = true, broker.cert_file'),
        ("[gateway]\ndefault_timeout_s = 600", 2, "must be below topology.message_ttl_s"),
        ("[topology]\nmessage_ttl_s = 60", 2, "must be below topology.message_ttl_s"),
    ],
)
def test_settings_that_contradict_are_named_with_their_line(text: str, line: int, says: str) -> None:
    message = refused(text)
    assert message.startswith(f"modelmq.toml, line {line}: ")
    assert says in message
    assert message.endswith(".")


def test_a_certificate_authority_for_the_management_api_alone_is_no_contradiction() -> None:
    assert load("[broker]\nca_file = 'c'\nmanagement_url = 'https://h:15671'", "f", {}, {}).broker.ca_file == "c"


@pytest.mark.parametrize(
    ("text", "parts"), [("h:1", ("h", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535)), ("[::1]:5672", ("::1", 5672))]
)
def test_hosts_are_taken_apart(text: str, parts: tuple[str, int]) -> None:
    assert split_host(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "h", ":1", "h:", "h:0", "h:65536", "h:-1", "h:1x", "::1:5672", "[h]:1", "a b:1", "u@h:1", "h/v:1", "h:\u0661"],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.hosts: "):
        split_host(text)
