from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelmq.broker import node_config
from modelmq.broker.node_config import Ports, files_in

FILES = files_in(Path("/a folder/#1"))
PORTS = Ports(amqp=1001, management=1002, distribution=1003, epmd=1004)


def conf(ports: Ports = PORTS) -> dict[str, str]:
    text = node_config.render_conf(FILES, ports, "me", "a password", 2**28)
    return dict(line.split(" = ", 1) for line in text.splitlines())  # type: ignore[misc]


def test_every_listener_names_the_loopback_address() -> None:
    with_tls = conf(Ports(1001, 1002, 1003, 1004, amqps=1005))
    listeners = {key: value for key, value in with_tls.items() if key.startswith(("listeners.", "management.tcp"))}
    assert listeners == {
        "listeners.tcp.1": "127.0.0.1:1001",
        "listeners.ssl.1": "127.0.0.1:1005",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": "1002",
    }
    environment = node_config.environment(FILES, "n@localhost", PORTS, "/bin", 2)
    assert environment["ERL_EPMD_ADDRESS"] == "127.0.0.1"
    assert "inet_dist_use_interface {127,0,0,1}" in environment["ERL_AFLAGS"]
    assert (environment["ERL_EPMD_PORT"], environment["RABBITMQ_DIST_PORT"]) == ("1004", "1003")


def test_there_is_another_first_user_than_guest() -> None:
    assert (conf()["default_user"], conf()["default_pass"]) == ("me", "a password")


def test_without_tls_there_is_nothing_of_it() -> None:
    assert not [key for key in conf() if "ssl" in key]


def test_no_value_holds_what_begins_a_comment() -> None:
    assert not [value for value in conf(Ports(1, 2, 3, 4, 5)).values() if re.search(r"[#'\"\n]", value)]


@pytest.mark.parametrize(("gib", "mib"), [(0.25, 256), (1, 409), (4, 1638), (64, 2048)])
def test_memory(gib: float, mib: int) -> None:
    assert node_config.memory_limit_bytes(int(gib * 2**30)) // 2**20 == mib
