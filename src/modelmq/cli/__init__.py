"""The command `modelmq`: flags and files become settings, values become lines and tables.

Each command loads only what it needs, so that a small question is answered quickly. Decides nothing about serving.
"""

from __future__ import annotations

from modelmq.cli.app import main

__all__ = ["main"]
