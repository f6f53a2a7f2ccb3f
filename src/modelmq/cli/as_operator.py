"""RabbitMQ's management API as the operator, who may look and nothing else; as the administrator where there is none.

What `status` and `dead` ask it is a look, so they need no administrator where the operator's secret is at hand.
"""

from __future__ import annotations

from modelmq.broker.management import Management, connect, tls_of
from modelmq.broker.secrets import read_secret, secret_file
from modelmq.settings import Settings
from modelmq.topology_names import user_name

TIMEOUT_S = 3.0


def management(settings: Settings) -> Management:
    """To be closed, or used in `with`. Raises ConfigError where there is neither."""
    broker = settings.broker
    user = user_name("operator", settings.topology.environment)
    path = secret_file(settings.state_dir, user)
    if not path.exists():
        return connect(broker)
    secret = read_secret("", path)
    user = secret.username or user
    return Management(broker.management_url, user, secret.password, tls=tls_of(broker), timeout_s=TIMEOUT_S)
