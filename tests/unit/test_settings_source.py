from __future__ import annotations

import pytest

from modelmq.errors import ConfigError
from modelmq.settings import CATALOG
from modelmq.settings_source import from_environ, from_flags, from_toml

SECRET = "hunter2-geheim"


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_toml(text, "my.toml", CATALOG)
    return caught.value.message


def test_a_file_gives_values_of_their_types_with_their_lines() -> None:
    given = from_toml("models_dir = 'm'\n\n[gateway]\n# a note\nport = 9000\ndrain_s = 5\n", "my.toml", CATALOG)
    assert {key: (each.value, each.origin) for key, each in given.items()} == {
        "models_dir": ("m", "my.toml, line 1"),
        "gateway.port": (9000, "my.toml, line 5"),
        "gateway.drain_s": (5.0, "my.toml, line 6"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gateway]\nprot = 1", 'my.toml, line 2: unknown key "prot" in [gateway]; did you mean "port"?'),
        ("[log]\nLe-vel = 1", 'my.toml, line 2: unknown key "Le-vel" in [log]; did you mean "level"?'),
        ("\n[gatway]\nport = 1", "my.toml, line 2: there is no section [gatway]; did you mean [gateway]?"),
        ("port = 1", 'my.toml, line 1: unknown key "port"; it belongs in [gateway].'),
        ("drain_s = 1", 'my.toml, line 1: unknown key "drain_s"; it belongs in [gateway] or [worker].'),
        ("gateway.prot = 1", 'my.toml, line 1: unknown key "prot" in [gateway]; did you mean "port"?'),
        ("[log]\nzzz = 1", 'my.toml, line 2: unknown key "zzz" in [log]; the keys here are level, format.'),
        ("log = 3", "my.toml, line 1: log must be a table, [log], not 3."),
    ],
)  # fmt: skip
def test_an_unknown_key_names_its_line_and_the_nearest_right_one(text: str, message: str) -> None:
    assert refused(text) == message


def test_a_section_like_no_other_is_answered_with_the_list() -> None:
    assert refused("[zzzzzz]\na = 1").endswith("the sections are [broker], [gateway], [worker], [topology], [log].")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("gateway.port", "'x'", 'a port number from 0 to 65535, where 0 means any free port, not "x"'),
        ("gateway.port", "70000", "a port number from 0 to 65535, where 0 means any free port, not 70000"),
        ("gateway.drain_s", "true", "a number of seconds above 0 and at most 1000000, not true"),
        ("gateway.drain_s", "nan", "a number of seconds above 0 and at most 1000000, not nan"),
        ("broker.tls", "1", "true or false, not 1"),
        ("broker.hosts", "'h:1'", 'a list of at least one "host:port" with a port from 1 to 65535, not "h:1"'),
        ("topology.queue_type", "'stream'", '"quorum" or "classic", not "stream"'),
    ],
)
def test_a_wrong_value_says_what_was_expected(key: str, value: str, says: str) -> None:
    section, _, name = key.partition(".")
    assert refused(f"[{section}]\n{name} = {value}") == f"my.toml, line 2: {key} must be {says}."


def test_an_item_of_a_table_is_named_at_its_own_line() -> None:
    assert refused("[topology.roles]\na = ['m']\nb = ['not/a/name']").startswith("my.toml, line 3: topology.roles must")
    assert from_toml("[topology.roles]\na = ['m']", "f", CATALOG)["topology.roles"].value == {"a": ("m",)}


@pytest.mark.parametrize(
    ("text", "line"), [("a = ", 1), ("[gateway]\nport = 1\nport = 2\n", 3), ("[gateway\n", 1), ("x = 'open", 1)]
)
def test_text_that_is_no_toml_is_named_with_its_line(text: str, line: int) -> None:
    assert refused(text).startswith(f"my.toml, line {line}: this is not valid TOML: ")


def test_values_nested_without_end_are_one_sentence() -> None:
    assert "nested too deeply" in refused("a = " + "[" * 100_000)


def test_a_secret_is_never_repeated() -> None:
    assert SECRET not in refused(f"[broker]\npassword = ['{SECRET}']")
    assert "not what stands there" in refused(f"[broker]\npassword = ['{SECRET}']")
    assert SECRET not in refused(f"[broker]\nmanagement_url = 'http://me:{SECRET}@host:15672'")


def test_control_characters_and_length_are_kept_out_of_the_sentence() -> None:
    message = refused('[gateway]\nport = "' + "\\u001b[31m" + "x" * 500 + '"')
    assert message.isprintable()
    assert len(message) < 220


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("MODELMQ_GATEWAY_PORT", " 9000 ", "gateway.port", 9000),
        ("MODELMQ_BROKER_TLS", "Yes", "broker.tls", True),
        ("MODELMQ_BROKER_TLS", "0", "broker.tls", False),
        ("MODELMQ_BROKER_HOSTS", "a:1, b:2", "broker.hosts", ("a:1", "b:2")),
        ("MODELMQ_BROKER_HEARTBEAT_S", "2.5", "broker.heartbeat_s", 2.5),
        ("MODELMQ_MODELS_DIR", "here", "models_dir", "here"),
        ("MODELMQ_TOPOLOGY_ROLES", "r=a,b; s = c", "topology.roles", {"r": ("a", "b"), "s": ("c",)}),
        ("MODELMQ_TOPOLOGY_GENERATIONS", "gateway=1,2", "topology.generations", {"gateway": (1, 2)}),
    ],
)
def test_variables_are_read_as_their_settings_types(variable: str, text: str, key: str, value: object) -> None:
    given = from_environ({variable: text, "HOME": "/"}, CATALOG)
    assert {key: (value, f"environment variable {variable}")} == {k: tuple(each) for k, each in given.items()}


def test_an_unknown_variable_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(
        ConfigError, match=r"MODELMQ_GATEWAY_PROT is not a setting; did you mean MODELMQ_GATEWAY_PORT\?"
    ):
        from_environ({"MODELMQ_GATEWAY_PROT": "1"}, CATALOG)


def test_variables_that_are_no_settings_are_passed_over() -> None:
    assert from_environ({"MODELMQ_CONFIG": "f", "MODELMQ_HTTP_URL": "u", "PORT": "1"}, CATALOG) == {}


@pytest.mark.parametrize(("variable", "text"), [("MODELMQ_GATEWAY_PORT", "x"), ("MODELMQ_BROKER_TLS", "maybe")])
def test_a_wrong_variable_says_what_was_expected(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f'environment variable {variable}: .* must be .*, not "{text}"'):
        from_environ({variable: text}, CATALOG)


def test_flags_take_values_and_texts() -> None:
    given = from_flags({"gateway.port": "9000", "broker.tls": True, "log.level": None}, CATALOG)
    assert {key: each.value for key, each in given.items()} == {"gateway.port": 9000, "broker.tls": True}


def test_an_unknown_flag_is_named_with_the_nearest_right_one() -> None:
    with pytest.raises(
        ConfigError, match=r"There is no setting gateway.prot for the flag; did you mean gateway.port\?"
    ):
        from_flags({"gateway.prot": "1"}, CATALOG)


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len({setting.variable for setting in CATALOG.values()}) == len(CATALOG)
