"""Ends a private node and everything that belongs to it, in order and for sure.

The node goes first, as it signs off from its epmd; then what it had started, then epmd. What nobody recorded, as its
owner was killed in between, is found by the folder's name in its environment. Knows nothing of starting.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

from modelmq.broker import node_config
from modelmq.broker import node_record as records
from modelmq.broker.node_config import OWNER_VARIABLE, NodeFiles
from modelmq.broker.node_record import NodeRecord, RunningRecord
from modelmq.broker.processes import alive, end, family, wait, with_variable
from modelmq.errors import NodeError

_ERL_TIMEOUT_S = 3.0
_REST_TIMEOUT_S = 5.0

# While RabbitMQ stops, its statistics handler asks the very process that waits for it to stop, and gives up after
# five seconds. Taken out beforehand, it need not ask.
_DETACH_STATISTICS = (
    'rpc:call(list_to_atom(os:getenv("RABBITMQ_NODENAME")), gen_event, delete_handler,'
    " [rabbit_event, rabbit_mgmt_db_handler, []], 2000), halt()."
)


def end_everything(
    files: NodeFiles, record: NodeRecord | None, running: RunningRecord | None, timeout_s: float
) -> bool:
    """Ends the node in order, by force after `timeout_s`, then the rest. False: nothing ran. Raises NodeError."""
    found = with_variable(OWNER_VARIABLE, str(files.folder))
    if running is not None and running.node is not None and alive(running.node):
        started_by_node = family(running.node.pid)[1:]
        if record is not None and timeout_s > _ERL_TIMEOUT_S:
            _detach_statistics(files, record, running)
        _end_or_raise(files, end([running.node], timeout_s))
        end(wait(started_by_node, _REST_TIMEOUT_S), 0.0)
        found.append(running.node)
    if running is not None and running.epmd is not None:
        _end_or_raise(files, end([running.epmd], _REST_TIMEOUT_S))
    _end_or_raise(files, end(with_variable(OWNER_VARIABLE, str(files.folder)), _REST_TIMEOUT_S))
    records.forget_running(files)
    return bool(found)


def _end_or_raise(files: NodeFiles, ended: bool) -> None:
    if not ended:
        raise NodeError(
            f"A process of the RabbitMQ node in {files.folder} cannot be ended: look for it with `ps -ef` and end it "
            "as its own user."
        )


def _detach_statistics(files: NodeFiles, record: NodeRecord, running: RunningRecord) -> None:
    """Only makes stopping faster, so whatever goes wrong here is passed over."""
    with suppress(OSError, subprocess.SubprocessError):
        name = f"stop-{os.getpid()}@localhost"
        path = os.environ.get("PATH", os.defpath)
        environment = node_config.environment(files, record.name, running.ports, path, schedulers=1)
        erl = [running.erl or "erl", "-noinput", "-boot", "start_clean", "-hidden", "-sname", name]
        subprocess.run(
            [*erl, "-eval", _DETACH_STATISTICS],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ERL_TIMEOUT_S,
            check=False,
        )
