"""What every service process has in common: settings, event loop, signals, log, metrics, the word that it is ready.

Stands between an operating system's process and a service, which knows nothing of either. Knows no service by name
but the one it is told.
"""

from __future__ import annotations

from modelmq.process.broker_access import connection_options
from modelmq.process.main import Process, main, run

__all__ = ["Process", "connection_options", "main", "run"]
