"""Looks at a broker in a dozen calls, however many models there are.

A thin shell around the management API, for everything that plans. Writes nothing, here or on the broker.
"""

from __future__ import annotations

from modelmq.broker.management import Management
from modelmq.provision.ownership import parameter_name, read
from modelmq.provision.plan_values import Observed
from modelmq.topology_names import check_vhost


def look(vhost: str, management: Management) -> Observed:
    """The broker's state as far as this virtual host is concerned. Raises ConfigError for its name, ProvisionError."""
    check_vhost(vhost)
    vhosts = management.vhosts()
    overview = management.overview()
    permissions = management.all_permissions()
    record = management.global_parameter(parameter_name(vhost))
    there = any(each.name == vhost for each in vhosts)
    return Observed(
        version=overview.version,
        admin=management.whoami().name,
        cluster=overview.cluster_name,
        vhosts=vhosts,
        feature_flags=management.feature_flags(),
        users=management.users(),
        permissions=tuple(each for each in permissions if each.vhost == vhost),
        elsewhere=tuple(each for each in permissions if each.vhost != vhost),
        exchanges=management.exchanges(vhost) if there else (),
        queues=management.queues(vhost) if there else (),
        bindings=management.bindings(vhost) if there else (),
        policies=management.policies(vhost) if there else (),
        recorded=None if record is None else read(record, vhost),
    )
