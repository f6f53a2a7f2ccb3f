"""Writes a file that only its owner can read, whole or not at all.

For plans and rendered definitions, which a user names; secrets have rules of their own in `secret_files`.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from modelmq.errors import ProvisionError


def write_private(path: Path, content: bytes) -> None:
    """In place of any file that was there. Raises ProvisionError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            draft.replace(path)
        except OSError:
            draft.unlink()
            raise
    except OSError as error:
        raise ProvisionError(f"The file {path} cannot be written: {error.strerror}.") from error
