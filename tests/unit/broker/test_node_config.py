from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelmq.broker import node_config
from modelmq.broker.node_config import Ports, files_in

FILES = files_in(Path("/a folder/#1"))
PORTS = Ports(amqp=1001, management=1002, distribution=1003, epmd=1004)


def conf(ports: Ports = PORTS, *, client_certificates: bool = False) -> dict[str, str]:
    text = node_config.render_conf(FILES, ports, "me", "a password", 2**28, client_certificates=client_certificates)
    return dict(line.split(" = ", 1) for line in text.splitlines())  # type: ignore[misc]


def listeners(conf: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in conf.items() if re.search(r"^listeners|\.(ip|port)$", key)}


def test_every_listener_names_the_loopback_address() -> None:
    with_tls = conf(Ports(1001, 1002, 1003, 1004, amqps=1005, https=1006))
    plain = {"listeners.tcp.1": "127.0.0.1:1001", "management.tcp.ip": "127.0.0.1", "management.tcp.port": "1002"}
    secure = {"listeners.ssl.1": "127.0.0.1:1005", "management.ssl.ip": "127.0.0.1", "management.ssl.port": "1006"}
    assert listeners(with_tls) == plain | secure
    assert listeners(conf()) == plain
    assert listeners(conf(Ports(0, 0, 1003, 1004, amqps=1005, https=1006))) == secure | {"listeners.tcp": "none"}
    environment = node_config.environment(FILES, "n@localhost", PORTS, "/bin", 2)
    assert environment["ERL_EPMD_ADDRESS"] == "127.0.0.1"
    assert "inet_dist_use_interface {127,0,0,1}" in environment["ERL_AFLAGS"]
    assert "eval" not in environment["ERL_AFLAGS"]
    assert node_config.preloading(FILES, environment)["ERL_AFLAGS"].endswith(" -run file eval preload.eval")
    assert (environment["ERL_EPMD_PORT"], environment["RABBITMQ_DIST_PORT"]) == ("1004", "1003")


def test_there_is_another_first_user_than_guest() -> None:
    assert (conf()["default_user"], conf()["default_pass"]) == ("me", "a password")


def test_without_tls_there_is_nothing_of_it() -> None:
    assert not [key for key in conf() if "ssl" in key]


def test_logins_by_certificate_only_where_they_are_asked_for() -> None:
    tls = Ports(0, 0, 3, 4, 5, 6)
    usual, ours = conf(tls), conf(tls, client_certificates=True)
    assert (usual["ssl_options.verify"], "auth_mechanisms.1" in usual) == ("verify_none", False)
    assert (ours["ssl_options.verify"], ours["ssl_options.fail_if_no_peer_cert"]) == ("verify_peer", "false")
    assert (ours["auth_mechanisms.1"], ours["ssl_cert_login_from"]) == ("EXTERNAL", "common_name")
    assert "auth_mechanism_ssl" in node_config.render_plugins(client_certificates=True)
    assert "auth_mechanism_ssl" not in node_config.render_plugins()


def test_no_value_holds_what_begins_a_comment() -> None:
    assert not [value for value in conf(Ports(1, 2, 3, 4, 5)).values() if re.search(r"[#'\"\n]", value)]


@pytest.mark.parametrize(("gib", "mib"), [(0.25, 256), (1, 409), (4, 1638), (64, 2048)])
def test_memory(gib: float, mib: int) -> None:
    assert node_config.memory_limit_bytes(int(gib * 2**30)) // 2**20 == mib
