"""Private nodes for tests, with every listener there is; they end with the tests, however these end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmq.broker import node_record
from modelmq.broker.install import locate
from modelmq.broker.node import NodeSpec, RunningNode, start
from modelmq.broker.node_config import files_in
from modelmq.broker.node_record import write_private
from tests.authority import Authority

# A session that is killed cannot end its node; this process sees its pipe close, and does.
_WATCH = """
import pathlib, sys
sys.stdin.read()
from modelmq.broker import node
node.stop(pathlib.Path(sys.argv[1]))
"""


_ERL_TIMEOUT_S = 30.0


@contextmanager
def started(
    folder: Path, authority: Authority, home: Path | None = None, *, extra_conf: str = ""
) -> Iterator[RunningNode]:
    """A node with all its listeners, and a certificate of the authority in place of one that it makes itself."""
    files, issued = files_in(folder), authority.issue("localhost")
    files.ca.parent.mkdir(mode=0o700, parents=True)
    for source, place in (
        (authority.ca_file, files.ca),
        (issued.cert_file, files.certificate),
        (issued.key_file, files.key),
    ):
        write_private(place, Path(source).read_bytes())
    watch = subprocess.Popen([sys.executable, "-c", _WATCH, str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        running = start(
            NodeSpec(directory=folder, tls=True, client_certificates=True, extra_conf=extra_conf, home=home)
        )
        try:
            yield running
        finally:
            running.stop(timeout_s=0.0)  # it is thrown away, so an orderly end would only take time
        watch.kill()  # nothing is left for it
    finally:
        watch.communicate(timeout=60)


def evaluate(directory: Path, expression: str) -> str:
    """What Erlang's expressions are worth on the node of a folder, printed; `{badrpc,…}` where that cannot be told.

    Asked by erl_call, which no node counts as a member, and which takes a hundredth of what `rabbitmqctl eval` does.
    """
    files = files_in(directory.resolve())
    record = node_record.find_record(files)
    assert record is not None
    assert record.ports is not None
    printed = f'lists:flatten(io_lib:format("~0p", [begin {expression.strip().removesuffix(".")} end])).\n'
    program = shutil.which("erl_call", path=locate(os.environ).path)
    assert program is not None
    try:
        done = subprocess.run(
            [program, "-sname", record.name, "-e", "-timeout", f"{_ERL_TIMEOUT_S:.0f}"],
            env={"HOME": str(files.folder), "ERL_EPMD_PORT": str(record.ports.epmd)},  # the cookie is in there
            cwd=files.folder,
            input=printed,
            capture_output=True,
            text=True,
            timeout=_ERL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "{badrpc,timeout}"
    found = re.fullmatch(r'\{ok, "(.*)"\}', done.stdout.strip(), re.DOTALL)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else f"{{badrpc,{done.stdout.strip() or done.stderr.strip()}}}"


def order(directory: Path, expression: str) -> None:
    """The same of one that is worth `ok`."""
    told = evaluate(directory, expression)
    assert told == "ok", f"{expression} {told}"
