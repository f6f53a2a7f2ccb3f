from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from modelmq.amqp.handshake import Handshake
from modelmq.amqp.options import ConnectionOptions, Credentials, Endpoint
from modelmq.errors import AccessRefused, ConnectFailed, ProtocolViolation
from modelmq.tls import TlsOptions

START = commands.Connection.Start(server_properties={}, mechanisms="AMQPLAIN PLAIN", locales="en_US")


def handshake(**options: Any) -> Handshake:
    credentials = Credentials("user", "pass:wörd")
    known = {"endpoints": (Endpoint("h"),), "credentials": lambda: credentials}
    return Handshake(ConnectionOptions(**known | options), credentials)


def tuned(tune: commands.Connection.Tune, **options: Any) -> tuple[Handshake, commands.Connection.TuneOk]:
    opening = handshake(**options)
    opening.receive(START)
    answer = opening.receive(tune)[0]
    assert isinstance(answer, commands.Connection.TuneOk)
    return opening, answer


def test_the_whole_opening() -> None:
    opening = handshake(vhost="dev", name="gateway")
    (start_ok,) = opening.receive(START)
    assert isinstance(start_ok, commands.Connection.StartOk)
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", "\0user\0pass:wörd")
    properties = start_ok.client_properties or {}
    assert properties["connection_name"] == "gateway"
    assert all(properties["capabilities"].values())  # type: ignore[union-attr]
    _, open_ = opening.receive(commands.Connection.Tune(2047, 131072, 60))
    assert isinstance(open_, commands.Connection.Open)
    assert open_.virtual_host == "dev"
    assert not opening.done
    assert opening.receive(commands.Connection.OpenOk()) == []
    assert opening.done


@pytest.mark.parametrize(
    ("offered", "wanted", "agreed"),
    [(60, 10.0, 10), (5, 10.0, 5), (0, 10.0, 10), (60, 0.0, 60), (0, 0.0, 0), (60, 0.5, 1)],
)
def test_the_shorter_heartbeat_is_agreed_on(offered: int, wanted: float, agreed: int) -> None:
    opening, answer = tuned(commands.Connection.Tune(2047, 131072, offered), heartbeat_s=wanted)
    assert answer.heartbeat == opening.heartbeat_s == agreed


@pytest.mark.parametrize(
    ("offered", "wanted", "agreed"), [(131_072, 8_192, 8_192), (8_192, 131_072, 8_192), (0, 131_072, 131_072)]
)
def test_the_smaller_frame_is_agreed_on(offered: int, wanted: int, agreed: int) -> None:
    opening, answer = tuned(commands.Connection.Tune(2047, offered, 60), frame_max=wanted)
    assert answer.frame_max == opening.frame_max == agreed


@pytest.mark.parametrize(("offered", "wanted", "agreed"), [(2047, 10, 10), (10, 2047, 10), (0, 7, 7), (0, 0, 65_535)])
def test_the_fewer_channels_are_agreed_on(offered: int, wanted: int, agreed: int) -> None:
    opening, answer = tuned(commands.Connection.Tune(offered, 131072, 60), channel_max=wanted)
    assert answer.channel_max == opening.channel_max == agreed


def test_a_frame_smaller_than_amqp_allows_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="4095 bytes"):
        tuned(commands.Connection.Tune(2047, 4095, 60))


def test_a_broker_without_plain_is_refused_in_words() -> None:
    with pytest.raises(ConnectFailed, match=r"^offers the logins EXTERNAL XPLAIN, not PLAIN; allow it in"):
        handshake().receive(commands.Connection.Start(mechanisms="EXTERNAL XPLAIN"))


BY_CERTIFICATE = {"external": True, "endpoints": (Endpoint("h", tls=TlsOptions(cert_file="c", key_file="k")),)}


def test_a_login_by_certificate_sends_no_password() -> None:
    (start_ok,) = handshake(**BY_CERTIFICATE).receive(commands.Connection.Start(mechanisms="PLAIN EXTERNAL"))
    assert isinstance(start_ok, commands.Connection.StartOk)
    assert (start_ok.mechanism, start_ok.response) == ("EXTERNAL", "")


def test_a_broker_without_external_is_refused_in_words() -> None:
    with pytest.raises(ConnectFailed, match="not EXTERNAL; it needs the plugin rabbitmq_auth_mechanism_ssl"):
        handshake(**BY_CERTIFICATE).receive(START)


def test_who_a_certificate_names_is_not_known_to_us() -> None:
    opening = handshake(**BY_CERTIFICATE)
    opening.receive(commands.Connection.Start(mechanisms="EXTERNAL"))
    with pytest.raises(AccessRefused, match="refused the user that the client certificate names") as caught:
        opening.receive(commands.Connection.Close(403, "no", 0, 0))
    assert '"user"' not in caught.value.message


@pytest.mark.parametrize(
    "methods",
    [
        [commands.Connection.Tune(0, 0, 0)],
        [commands.Connection.OpenOk()],
        [START, START],
        [START, commands.Connection.OpenOk()],
        [START, commands.Connection.Tune(0, 131072, 0), commands.Connection.Tune(0, 131072, 0)],
        [START, commands.Connection.Blocked("x")],
        [commands.Queue.DeclareOk("q", 0, 0)],
    ],
)
def test_methods_out_of_order_are_violations(methods: list[Any]) -> None:
    opening = handshake()
    *first, last = methods
    for method in first:
        opening.receive(method)
    with pytest.raises(ProtocolViolation, match=r"where .* is due"):
        opening.receive(last)


@pytest.mark.parametrize("code", [403, 530])
def test_a_refusal_names_user_and_virtual_host_and_not_the_password(code: int) -> None:
    opening = handshake(vhost="dev")
    opening.receive(START)
    with pytest.raises(AccessRefused, match=r'"user".*"dev"') as caught:
        opening.receive(commands.Connection.Close(code, "ACCESS_REFUSED", 0, 0))
    assert caught.value.reply_code == code
    assert "wörd" not in str(caught.value)


def test_any_other_end_is_no_refusal() -> None:
    with pytest.raises(ConnectFailed, match="320 CONNECTION_FORCED") as caught:
        handshake().receive(commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0))
    assert not isinstance(caught.value, AccessRefused)
    assert caught.value.reply_code == 320
