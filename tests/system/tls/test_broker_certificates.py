"""What the broker shows is verified, over AMQP and over the management API, and each refusal says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelmq.broker.node import RunningNode
from tests.authority import Authority, Issued

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]
Reach = Callable[..., str]
ServeWith = Callable[[Issued], None]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_authority_and_every_name_of_it_are_good(reach: Reach, host: str) -> None:
    assert reach(host=host) == ""


def test_an_authority_that_did_not_sign_it(reach: Reach, tmp_path: Path) -> None:
    # Of the same name: it is the signature that counts.
    stranger = Authority(tmp_path).ca_file
    said = reach(ca_file=str(stranger))
    assert f"not trusted: {stranger} does not hold the authority that signed it; name that one's in ca_file" in said
    assert ":" in said  # the address


def test_the_systems_authorities_do_not_know_it(reach: Reach) -> None:
    said = reach(ca_file="")
    assert "not trusted: this system does not know the authority that signed it; name that one's in ca_file" in said


def test_one_that_has_expired(reach: Reach, serve_with: ServeWith, authority: Authority) -> None:
    serve_with(authority.issue("localhost", days=(-2, -0.01)))
    assert "has a certificate that has expired; renew it there, unless this machine's clock is wrong" in reach()


def test_one_that_is_not_valid_yet(reach: Reach, serve_with: ServeWith, authority: Authority) -> None:
    serve_with(authority.issue("localhost", days=(0.5, 1)))
    assert "has a certificate that is not valid yet; is this machine's clock wrong?" in reach()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_one_for_other_names(reach: Reach, serve_with: ServeWith, authority: Authority, host: str) -> None:
    serve_with(authority.issue("localhost", hosts=("broker.example", "10.0.0.1")))
    said = reach(host=host)
    assert f'has a certificate that is not for "{host}"; connect by a name that it holds, or renew it' in said


def test_tls_to_a_port_without(reach: Reach) -> None:
    assert "does not speak TLS there; is it the port of its TLS listener?" in reach(to_plain_port=True)


def test_a_renewed_certificate_is_served_without_a_restart(
    reach: Reach, serve_with: ServeWith, authority: Authority, node: RunningNode
) -> None:
    pid = node.pid
    serve_with(authority.issue("localhost"))
    assert reach() == ""
    assert node.pid == pid
    assert node.alive()
