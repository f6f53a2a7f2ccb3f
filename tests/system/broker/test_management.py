"""The management API when it is not what it should be: each mishap is one clear sentence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelmq.broker.management import Management, connect
from modelmq.broker.node import RunningNode
from modelmq.errors import ConfigError, ProvisionError
from modelmq.provision import provision
from modelmq.provision.passwords import password_hash
from modelmq.settings import BrokerSettings, Settings
from modelmq.tls import TlsOptions

Answer = Callable[[socket.socket, threading.Event], None]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def answering() -> Iterator[Callable[[Answer], str]]:
    """A server that treats every connection as told; its address."""
    stop = threading.Event()
    opened: list[tuple[socket.socket, threading.Thread]] = []

    def start(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    link, _ = listener.accept()
                except TimeoutError:
                    continue
                with link:
                    link.settimeout(10)
                    link.recv(65536)
                    answer(link, stop)

        thread = threading.Thread(target=serve)
        thread.start()
        opened.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    stop.set()
    for listener, thread in opened:
        thread.join()
        listener.close()


def sentence(url: str, username: str = "admin", password: str = "a password", timeout_s: float = 0.5) -> str:
    with (
        Management(url, username, password, timeout_s=timeout_s) as management,
        pytest.raises(ProvisionError) as caught,
    ):
        provision(Settings(), (), management)
    text = caught.value.message
    assert url in text or "address" in text
    assert "\n" not in text
    assert text.endswith((".", "?"))
    assert password not in text
    return text


def said(content: bytes) -> Answer:
    return lambda link, _: link.sendall(content)


def dripping(link: socket.socket, stop: threading.Event) -> None:
    link.sendall(OK + b"content-length: 1000000\r\n\r\n")
    while not stop.is_set():
        try:
            link.sendall(b" ")
        except OSError:
            return
        stop.wait(0.02)


CANNOT_READ = "cannot be read; is this really RabbitMQ's management API?"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(b""), "does not speak proper HTTP; is this really the management port?"),
        (said(b"AMQP\x00\x00\x09\x01"), "does not speak proper HTTP"),
        (said(OK + b"content-length: 50\r\n\r\n[{"), "does not speak proper HTTP"),
        (said(OK + b"content-length: 2\r\n\r\n[{"), CANNOT_READ),
        (said(OK + b"content-length: 2\r\n\r\n{}"), CANNOT_READ),
        (said(OK + b"content-length: 6\r\n\r\n<html>"), CANNOT_READ),
        (said(OK + b"content-length: 3\r\n\r\n\xff\xfe\x00"), CANNOT_READ),
        (said(OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"), "sent a compressed answer that cannot"),
        (said(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"), "HTTP 503; see the broker's log."),
        (said(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n"), "There is no management API at"),
        (said(b"HTTP/1.1 301 X\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"), "HTTP 301, no reason given."),
        (lambda _, stop: stop.wait(5), "did not answer in time; RabbitMQ may be overloaded"),
        (dripping, "did not answer in time"),
    ],
    ids=[
        "closes", "another protocol", "half an answer", "half a JSON", "lacks what matters", "a page", "no text",
        "not gzip", "503", "404", "301", "silence", "drop by drop",
    ],
)  # fmt: skip
def test_half_an_answer_is_one_sentence(answering: Callable[[Answer], str], answer: Answer, words: str) -> None:
    assert words in sentence(answering(answer))


def test_an_answer_is_bounded_as_a_whole(answering: Callable[[Answer], str]) -> None:
    began = time.monotonic()
    sentence(answering(dripping), timeout_s=0.3)
    assert time.monotonic() - began < 5


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert "cannot be reached; is RabbitMQ running with its management plugin" in sentence(url)


def test_an_address_that_is_none() -> None:
    assert "cannot be reached" in sentence("http://no-such-host.invalid:15672", timeout_s=5)
    assert "has an address that is not http:// or https://" in sentence("ftp://127.0.0.1:1")


@pytest.mark.broker
def test_the_amqp_port_is_not_the_management_port(node: RunningNode) -> None:
    # It answers eight bytes and closes, which may be seen as either.
    text = sentence(f"http://127.0.0.1:{node.amqp_port}", timeout_s=5)
    assert "is this really the management port?" in text or "is this its management port?" in text


@pytest.mark.both_brokers
@pytest.mark.broker
def test_a_wrong_password_and_an_unknown_user(node: RunningNode) -> None:
    for user in (node.admin_username, "nobody"):
        text = sentence(node.management_url, user, "not the password", timeout_s=10)
        assert f'the user "{user}" or its password is wrong; see broker.admin_username' in text


@pytest.mark.both_brokers
@pytest.mark.broker
@pytest.mark.parametrize("tags", [(), ("management",), ("policymaker",), ("monitoring",)], ids=str)
def test_a_user_that_is_no_administrator(node: RunningNode, tags: tuple[str, ...], tmp_path: Path) -> None:
    settings = Settings(broker=BrokerSettings(vhost="never-made"), state_dir=str(tmp_path))
    with Management(node.management_url, node.admin_username, node.admin_password) as admin:
        admin.put_user("half-an-admin", password_hash("its password", b"salt"), tags)
        try:
            with (
                Management(node.management_url, "half-an-admin", "its password") as management,
                pytest.raises(ProvisionError) as caught,
            ):
                provision(settings, (), management)
        finally:
            admin._send("DELETE", "tidy up", None, "users", "half-an-admin")
        assert "never-made" not in {vhost.name for vhost in admin.vhosts()}
    assert 'the user "half-an-admin" lacks the tag "administrator"; add it with rabbitmqctl' in caught.value.message


def test_no_administrator_or_no_password_is_named(tmp_path: Path) -> None:
    cases = (
        (BrokerSettings(), "There is no administrator: set broker.admin_username"),
        (BrokerSettings(admin_username="a"), "There is no password: set broker.admin_password_file"),
        (BrokerSettings(admin_username="a", admin_password_file="nowhere"), "the file nowhere cannot be read"),
    )
    for broker, words in cases:
        with pytest.raises(ConfigError, match=words):
            connect(broker)


def test_a_certificate_authority_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca_file: the file .*nowhere\.pem cannot be read"):
        Management("https://127.0.0.1:1", "a", "b", tls=TlsOptions(ca_file=str(tmp_path / "nowhere.pem")))
