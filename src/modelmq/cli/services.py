"""`modelmq gateway` and `modelmq worker`: one service in this process, as its own user.

Where the settings name no password, it is the one that provisioning left in the state folder.
"""

from __future__ import annotations

from modelmq import process
from modelmq.process.broker_access import with_own_secret
from modelmq.settings import Settings
from modelmq.topology_names import user_name


def run_gateway(settings: Settings) -> None:
    """Until Ctrl-C. Raises ConfigError."""
    from modelmq.gateway.__main__ import run  # noqa: PLC0415 - neither service is loaded for the other

    user = user_name("gateway", settings.topology.environment)
    process.run("gateway", with_own_secret(settings, user), run)


def run_worker(settings: Settings) -> None:
    """Until Ctrl-C. Raises ConfigError."""
    from modelmq.worker.__main__ import run  # noqa: PLC0415

    user = user_name("worker", settings.topology.environment, settings.worker.role)
    process.run("worker", with_own_secret(settings, user), run)
