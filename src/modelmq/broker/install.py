"""Finds the RabbitMQ that is installed on this machine, wherever its package put it.

The node starts what this finds. Looks for the server's own start script, never for the wrapper in /usr/sbin, which
insists on being the system user `rabbitmq`. Installs nothing: `tools/bootstrap.sh` does, before there is any Python.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelmq.errors import NodeError

_VERSIONED = "rabbitmq/lib/rabbitmq_server-*/sbin"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Installation(msgspec.Struct, frozen=True):
    """RabbitMQ's start script, Erlang's programs, and the PATH on which the script finds what it calls."""

    server: Path
    epmd: Path
    erl: Path
    path: str


def locate(
    environ: Mapping[str, str],
    *,
    home: Path | None = None,
    roots: tuple[Path, ...] = (Path("/usr/lib"),),
    system_path: str = _SYSTEM_PATH,
) -> Installation:
    """The one in `home`, else in `RABBITMQ_HOME`, else the package's, else the one on PATH. Raises NodeError."""
    path = ":".join(part for part in (environ.get("PATH", ""), system_path) if part)
    named = str(home or environ.get("RABBITMQ_HOME", ""))
    folder = _server_folder(named, path, roots)
    # A home may bring the Erlang that its RabbitMQ needs.
    erlang_path = f"{named}/bin:{path}" if named else path
    return Installation(
        server=folder / "rabbitmq-server",
        epmd=_erlang("epmd", erlang_path),
        erl=_erlang("erl", erlang_path),
        path=path,
    )


def _erlang(program: str, path: str) -> Path:
    found = shutil.which(program, path=path)
    if found is None:
        raise NodeError(f"Erlang's {program} is not on the PATH: install the package erlang-base, or add it to PATH.")
    return Path(found)


def _server_folder(home: str, path: str, roots: tuple[Path, ...]) -> Path:
    if home:
        folder = Path(home) / "sbin"
        if _holds_server(folder):
            return folder
        raise NodeError(f"RABBITMQ_HOME is {home}, but there is no {folder}/rabbitmq-server: correct or unset it.")
    candidates = [root / "rabbitmq" / "bin" for root in roots]
    candidates += [folder for root in roots for folder in sorted(root.glob(_VERSIONED), reverse=True)]
    on_path = shutil.which("rabbitmq-server", path=path)
    if on_path is not None:
        candidates += [Path(on_path).parent, Path(on_path).resolve().parent]
    for folder in candidates:
        if _holds_server(folder):
            return folder
    raise NodeError(
        "RabbitMQ is not installed: install the package rabbitmq-server (on Debian and Ubuntu `make up` does it), or "
        "set RABBITMQ_HOME to a folder that holds sbin/rabbitmq-server."
    )


def _holds_server(folder: Path) -> bool:
    # The start script sources rabbitmq-env from its own folder; the system's wrapper has no such neighbour.
    return (folder / "rabbitmq-server").is_file() and (folder / "rabbitmq-env").is_file()
