"""Runs one service as this process, from its settings to its exit status.

The shell that both `python -m modelmq.<service>` and `modelmq <service>` use. SIGTERM and SIGINT ask the service to
drain; how, is its own business.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import uvloop

from modelmq.errors import ConfigError, ModelMQError
from modelmq.events import Emit
from modelmq.observe import Metrics, fan_out, open_log
from modelmq.settings import Settings, load

READY_VARIABLE = "MODELMQ_READY_FD"
"""Names the file descriptor that gets the line `ready` once the service accepts work."""
_CONFIG_VARIABLE = "MODELMQ_CONFIG"
_GENERAL, _USAGE = 1, 2
_NEW_OBJECTS = 20_000
"""Between two looks for garbage; what is not part of a cycle is freed at once without one."""


class Process:
    """What a service gets from its process."""

    def __init__(self, settings: Settings, emit: Emit, metrics: Metrics) -> None:
        self.settings = settings
        self.emit = emit
        self.metrics = metrics
        self.stop = asyncio.Event()
        """Set when the process is told to end."""
        self._ready_fd = os.environ.get(READY_VARIABLE, "")

    def ready(self) -> None:
        """Tell whoever started this process that work is accepted. Once; more does nothing."""
        descriptor, self._ready_fd = self._ready_fd, ""
        if descriptor.isdecimal():
            # Nobody may listen any more, which is no reason not to serve.
            with contextlib.suppress(OSError):
                os.write(int(descriptor), b"ready\n")
                os.close(int(descriptor))


Body = Callable[[Process], Awaitable[None]]


def run(service: str, settings: Settings, body: Body) -> None:
    """Until the service ends. Raises what it raises."""
    metrics = Metrics(service)
    emit = fan_out(open_log(sys.stderr, settings.log.level, settings.log.format, service), metrics)
    _allow_many_files()
    _collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_ended(settings, emit, metrics, body))


def main(service: str, body: Body, environ: Mapping[str, str] = os.environ) -> int:
    """The same with the settings of the environment; an error is one sentence. The exit status."""
    try:
        run(service, settings_of(environ), body)
    except ModelMQError as error:
        print(f"modelmq.{service}: {error.message}", file=sys.stderr)  # noqa: T201 - the log may not be open yet
        return _USAGE if isinstance(error, ConfigError) else _GENERAL
    return 0


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Of the environment, and of the settings file that it names, if any. Raises ConfigError."""
    path = environ.get(_CONFIG_VARIABLE, "")
    try:
        text = Path(path).read_text("utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error}.") from error
    return load(text, path, environ, {})


async def _until_ended(settings: Settings, emit: Emit, metrics: Metrics, body: Body) -> None:
    process = Process(settings, emit, metrics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop.set)
    await body(process)


def _collect_seldom() -> None:
    """Requests under way are garbage to nobody, yet Python looks through them at every 700 new objects."""
    gc.collect()
    gc.freeze()  # what is loaded now stays: a full collection, which stops everything, needs 7 ms less
    gc.set_threshold(_NEW_OBJECTS, 10, 10)


def _allow_many_files() -> None:
    """A connection is a file; systems often allow 1024 unless asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
