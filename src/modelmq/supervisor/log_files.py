"""The file that a service's output goes to: opened, kept from growing without end, and read for its last words.

Services append, so a file can be emptied under them once its content is copied aside. Does not know the services.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

LONGEST_BYTES = 10_000_000
_TAIL_BYTES = 8192
_STARTED = "--- started "


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor that appends; a line in the file says that something starts here."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{_STARTED}{time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
        yield descriptor
    finally:
        os.close(descriptor)


def shorten(path: Path, longest_bytes: int = LONGEST_BYTES) -> None:
    """Moves what is in a long file aside into `<path>.1`, replacing what was there; the file stays in use."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > longest_bytes:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def last_line(path: Path) -> str:
    """The last line since the service was started; of a JSON line its error. Empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines or lines[-1].startswith(_STARTED):
        return ""
    try:
        fields = msgspec.json.decode(lines[-1], type=dict[str, object])
    except msgspec.DecodeError:
        return lines[-1].strip()
    return str(fields.get("error") or fields.get("reason") or "")
