"""Private nodes for tests, with every listener there is; they end with the tests, however these end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
