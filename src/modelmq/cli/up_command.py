"""`modelmq up`: the supervisor's run of everything, printed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping

from rich.console import Console

from modelmq.cli.config import Found
from modelmq.cli.console import ConsoleProgress
from modelmq.supervisor.run import UpOptions
from modelmq.supervisor.up import up


def run(found: Found, workers: int, environ: Mapping[str, str]) -> int:
    """Returns when everything is stopped; the exit status. Raises ModelMQError."""
    with contextlib.suppress(AttributeError, ValueError):  # a stream of a test's own
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without our check marks
    progress = ConsoleProgress(Console(soft_wrap=True))
    own_models = "models_dir" in found.given
    status = asyncio.run(up(UpOptions(found.settings, own_models, workers, environ), progress))
    progress.stopped()
    return status
