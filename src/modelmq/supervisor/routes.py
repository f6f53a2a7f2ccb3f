"""What a models folder asks of the topology: one route per model, whatever its versions.

Stands between the runtimes, which read the folder, and the topology, which knows no files. Pure.
"""

from __future__ import annotations

from modelmq.runtimes import Catalog, ModelSource
from modelmq.topology_names import ModelRoute


def routes_of(catalog: Catalog) -> tuple[ModelRoute, ...]:
    """In the catalog's order; queue and routing key are those of the first version, as for the worker."""
    versions: dict[str, list[ModelSource]] = {}
    for source in catalog.models:
        versions.setdefault(source.name, []).append(source)
    return tuple(
        ModelRoute(
            name,
            tuple(source.version for source in sources),
            queue=sources[0].settings.queue,
            routing_key=sources[0].settings.routing_key,
        )
        for name, sources in versions.items()
    )
