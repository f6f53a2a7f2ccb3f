from __future__ import annotations

import signal

import httpx
import pytest

from modelmq.errors import ConfigError
from modelmq.observe import Asgi, Metrics, health_app, serve_http


@pytest.fixture
def app() -> Asgi:
    return health_app(Metrics("worker"), lambda: (True, ""))


async def test_it_answers_on_the_port_it_tells_and_is_gone_afterwards(app: Asgi) -> None:
    async with serve_http(app, "127.0.0.1", 0) as port, httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
        assert (await http.get(f"http://127.0.0.1:{port}/nowhere")).status_code == 404
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"http://127.0.0.1:{port}/health/live")
    async with serve_http(app, "127.0.0.1", port) as again:
        assert again == port


async def test_the_process_keeps_its_signal_handlers(app: Asgi) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serve_http(app, "127.0.0.1", 0):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_taken_port_is_one_sentence_naming_the_setting(app: Asgi) -> None:
    async with serve_http(app, "127.0.0.1", 0) as port:
        with pytest.raises(ConfigError, match=rf"^worker.health_port: 127.0.0.1:{port} cannot be listened on: "):
            async with serve_http(app, "127.0.0.1", port):
                pass


async def test_an_address_of_another_machine_is_refused(app: Asgi) -> None:
    with pytest.raises(ConfigError, match="health_port"):
        async with serve_http(app, "192.0.2.1", 0):
            pass
    with pytest.raises(ConfigError, match="no address to listen on"):
        async with serve_http(app, "no such host", 0):
            pass


async def test_an_idle_kept_alive_connection_does_not_hold_up_the_end(app: Asgi) -> None:
    async with httpx.AsyncClient() as http, serve_http(app, "127.0.0.1", 0) as port:
        await http.get(f"http://127.0.0.1:{port}/health/live")
