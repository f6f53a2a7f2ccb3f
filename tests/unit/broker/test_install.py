from __future__ import annotations

from pathlib import Path

import pytest

from modelmq.broker.install import locate
from modelmq.errors import NodeError


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with Erlang's programs on it, and the system's wrapper of RabbitMQ, which is of no use to us."""
    folder = tmp_path / "bin"
    return with_programs(folder, "epmd", "erl", "rabbitmq-server")


def with_programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch(0o755)
    return folder


def server_in(folder: Path) -> Path:
    return with_programs(folder, "rabbitmq-server", "rabbitmq-env")


def test_the_package_of_debian(tmp_path: Path, programs: Path) -> None:
    folder = server_in(tmp_path / "lib" / "rabbitmq" / "bin")
    found = locate({"PATH": str(programs)}, roots=(tmp_path / "lib",), system_path="")
    assert found.server == folder / "rabbitmq-server"
    assert (found.epmd, found.erl, found.path) == (programs / "epmd", programs / "erl", str(programs))


def test_other_packages_keep_a_folder_per_version(tmp_path: Path, programs: Path) -> None:
    for version in ("3.12.1", "4.0.5"):
        server_in(tmp_path / "lib" / "rabbitmq" / "lib" / f"rabbitmq_server-{version}" / "sbin")
    found = locate({"PATH": str(programs)}, roots=(tmp_path / "lib",), system_path="")
    assert "rabbitmq_server-4.0.5" in str(found.server)


def test_one_that_was_unpacked_by_hand(tmp_path: Path, programs: Path) -> None:
    folder = server_in(tmp_path / "opt" / "sbin")
    named = locate({"PATH": str(programs), "RABBITMQ_HOME": str(tmp_path / "opt")}, roots=(), system_path="")
    assert named.server == folder / "rabbitmq-server"
    on_path = locate({"PATH": f"{folder}:{programs}"}, roots=(), system_path="")
    assert on_path.server == folder / "rabbitmq-server"


def test_one_that_brings_its_own_erlang(tmp_path: Path, programs: Path) -> None:
    home = tmp_path / "opt"
    server_in(home / "sbin")
    own = with_programs(home / "bin", "epmd", "erl")
    for environ, named in (({"RABBITMQ_HOME": str(home)}, None), ({"RABBITMQ_HOME": "/nowhere"}, home)):
        found = locate({"PATH": str(programs), **environ}, home=named, roots=(), system_path="")
        assert (found.server, found.epmd, found.erl) == (home / "sbin" / "rabbitmq-server", own / "epmd", own / "erl")
        assert found.path == str(programs)


def test_the_wrong_home_is_named(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(NodeError, match=r"^RABBITMQ_HOME is /nowhere, but there is no .*: correct or unset it\.$"):
        locate({"PATH": str(programs), "RABBITMQ_HOME": "/nowhere"}, roots=(), system_path="")


def test_rabbitmq_is_not_installed(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(NodeError, match=r"^RabbitMQ is not installed: install the package rabbitmq-server"):
        locate({"PATH": str(programs)}, roots=(tmp_path / "lib",), system_path="")
    with pytest.raises(NodeError, match=r"^RabbitMQ is not installed"):
        locate({}, roots=(tmp_path / "lib",), system_path=str(tmp_path / "empty"))


def test_erlang_is_not_installed(tmp_path: Path) -> None:
    server_in(tmp_path / "rabbitmq" / "bin")
    with pytest.raises(NodeError, match=r"^Erlang's epmd is not on the PATH: install the package erlang-base"):
        locate({}, roots=(tmp_path,), system_path=str(tmp_path / "empty"))
