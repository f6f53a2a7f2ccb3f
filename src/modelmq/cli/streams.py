"""Standard streams that nobody reads any more: a terminal that was closed, a pipe whose reader has seen enough."""

from __future__ import annotations

import contextlib
import os
from typing import IO, Any


def let_go(stream: IO[Any]) -> None:
    """What is still to be written to it goes nowhere, also at the end of Python, which would make it status 120."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # it may be no file
        os.dup2(nowhere.fileno(), stream.fileno())
