"""`modelmq topology rotate` beside a running `modelmq up`, which asks for nothing but the command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelmq.broker.secrets import read_secret
from tests.system.up.running import SLOW, Starter, Up, write_model

# So that requests are under way at any moment without taking all of the machine.
PACED = SLOW.replace("sleep(1.0)", "sleep(0.1)")


@pytest.fixture
def up(folder: Path, start: Starter) -> Iterator[Up]:
    write_model(folder / "models", "double", PACED)
    run = start("--models", "models").until_serving()
    yield run
    run.stopped()


def test_gateway_and_worker_get_new_users_while_they_answer(up: Up) -> None:
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(up.ask().status_code)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for service in ("gateway", "worker", "operator", "client"):
            said = up.command("topology", "rotate", service)
            assert said.splitlines()[-1].endswith("is rotated.")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert set(answers) == {200}
    secrets = up.folder / ".modelmq" / "secrets"
    for account in ("ml-gateway", "ml-worker-default", "ml-operator", "ml-client"):
        assert read_secret("", secrets / account).username == f"{account}~2"
    assert "!" not in up.command("status")
    assert "Nothing to change." in up.command("topology", "apply")
    up.command("infer", "double", "--data", '{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[2]}]}')
