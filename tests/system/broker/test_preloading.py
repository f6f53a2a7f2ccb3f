"""What a node loads before RabbitMQ begins, tried in an Erlang without RabbitMQ's boot, which would load it as well."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from modelmq.broker import preloading
from modelmq.broker.install import locate
from modelmq.broker.node import RunningNode
from tests.nodes import evaluate

pytestmark = pytest.mark.broker

MODULES = ("rabbit", "ra", "rabbit_mgmt_wm_overview")
TELL = (
    f'[io:format("~s ~s~n", [M, code:is_loaded(M) =/= false]) || M <- [{", ".join(MODULES)}]], '
    'io:format("~s~n", [lists:join(":", code:get_path())]), halt().'
)


def told(folder: Path, libraries: str, *more: str) -> tuple[set[str], str]:
    """Which of these modules are loaded, and the path, in an Erlang with RabbitMQ's folders on it."""
    program = folder / "preload.eval"
    program.write_text(preloading.PROGRAM)
    erl = [str(locate(os.environ).erl), "-noinput", *more, "-run", "file", "eval", program.name]
    done = subprocess.run(
        [*erl, "-eval", TELL],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "ERL_LIBS": libraries},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *lines, path = done.stdout.splitlines()
    return {line.removesuffix(" true") for line in lines if line.endswith(" true")}, path


@pytest.fixture
def libraries(system_node: RunningNode) -> str:
    release = int(evaluate(system_node.directory, "erlang:system_info(otp_release)").strip('"'))
    if release >= 26:
        pytest.skip(f"Erlang {release} remembers what is in a folder, so that nothing is loaded beforehand")
    return evaluate(system_node.directory, "filename:dirname(code:lib_dir(rabbit))").strip('"')


@pytest.mark.parametrize(
    ("plugins", "loaded"),
    [("[rabbitmq_management].", {*MODULES}), ("[].", {"rabbit", "ra"}), ("[no_such_plugin].", {"rabbit", "ra"})],
)
def test_what_rabbitmq_and_its_plugins_need(tmp_path: Path, libraries: str, plugins: str, loaded: set[str]) -> None:
    nothing, path = told(tmp_path, libraries)  # there is no list of plugins
    assert nothing == set()
    assert "/rabbit-" in path
    (tmp_path / "enabled_plugins").write_text(plugins)
    assert told(tmp_path, libraries) == (loaded, path)


def test_programs_beside_the_node_load_nothing(tmp_path: Path, libraries: str) -> None:
    (tmp_path / "enabled_plugins").write_text("[rabbitmq_management].")
    name = ["-sname", f"short-lived-{os.getpid()}", "-start_epmd", "false", "-dist_listen", "false"]
    assert told(tmp_path, libraries, *name)[0] == set()


def test_without_rabbitmq_on_the_path_erlang_runs_on(tmp_path: Path, libraries: str) -> None:
    (tmp_path / "enabled_plugins").write_text("[rabbitmq_management].")
    loaded, path = told(tmp_path, "")
    assert loaded == set()
    assert "kernel" in path
