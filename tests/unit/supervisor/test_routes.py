from __future__ import annotations

from pathlib import Path

from modelmq.runtimes import Catalog, ModelSettings, ModelSource
from modelmq.supervisor.routes import routes_of
from modelmq.topology_names import ModelRoute


def source(name: str, version: str, **settings: str) -> ModelSource:
    return ModelSource(name, version, Path("m"), ModelSettings(runtime="python", **settings))  # type: ignore[arg-type]


def test_one_route_per_model_with_all_its_versions() -> None:
    catalog = Catalog((source("a", "1"), source("a", "2"), source("b", "7")), ())
    assert routes_of(catalog) == (ModelRoute("a", ("1", "2")), ModelRoute("b", ("7",)))


def test_queue_and_key_go_along() -> None:
    catalog = Catalog((source("a", "1", queue="ml-service-queue", routing_key="ml_service"),), ())
    assert routes_of(catalog) == (ModelRoute("a", ("1",), "ml-service-queue", "ml_service"),)


def test_no_models_no_routes() -> None:
    assert routes_of(Catalog((), ("a problem",))) == ()
