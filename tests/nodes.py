"""Private nodes for tests, with every listener there is; they end with the tests, however these end."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmq.broker import node_config, node_record
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


# Asks a node from an Erlang machine of its own, which no node counts as a member; rabbitmqctl takes far longer.
_EVALUATE = """
{ok, Tokens, _} = erl_scan:string(os:getenv("EXPRESSION")),
{ok, Parsed} = erl_parse:parse_exprs(Tokens),
Node = list_to_atom(os:getenv("RABBITMQ_NODENAME")),
Result = case rpc:call(Node, erl_eval, exprs, [Parsed, []], 20000) of {value, Value, _} -> Value; Other -> Other end,
io:format("~0p~n", [Result]), halt(0).
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
            running.stop()
    finally:
        watch.communicate(timeout=60)


def evaluate(directory: Path, expression: str, home: Path | None = None) -> str:
    """What an Erlang expression is worth on the node of a folder, printed; `{badrpc,…}` where it cannot be asked."""
    files = files_in(directory.resolve())
    record = node_record.find_record(files)
    assert record is not None
    assert record.ports is not None
    installation = locate(os.environ, home=home)
    environment = node_config.environment(files, record.name, record.ports, installation.path, schedulers=1)
    environment["EXPRESSION"] = expression
    name = f"ask-{secrets.token_hex(4)}@localhost"
    command = [str(installation.erl), "-noinput", "-boot", "start_clean", "-hidden", "-sname", name]
    done = subprocess.run(
        [*command, "-eval", " ".join(_EVALUATE.split("\n"))],
        env=environment,
        cwd=files.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ERL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def rabbitmqctl(node: RunningNode, home: Path | None, *arguments: str) -> str:
    """As an operator would; the node's own environment tells the command where it is. `home` as in `started`."""
    pairs = Path(f"/proc/{node.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    environment = {name.decode(): value.decode() for name, _, value in (pair.partition(b"=") for pair in pairs)}
    command = locate(os.environ if home is None else os.environ | {"RABBITMQ_HOME": str(home)}).server
    done = subprocess.run(
        [command.with_name("rabbitmqctl"), *arguments], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.decode()
