from __future__ import annotations

import pytest

from modelmq.gateway.routes import ASK, READ, Route, resolve


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/v2", Route("server")),
        ("/v2/", Route("server")),
        ("/v2/health/live", Route("live")),
        ("/v2/health/ready/", Route("ready")),
        ("/v2/health/ready?x=/v2/models", Route("ready")),
        ("/v2/models/digits", Route("model", "digits")),
        ("/v2/models/digits/versions/3", Route("model", "digits", "3")),
        ("/v2/models/digits/ready", Route("model_ready", "digits")),
        ("/v2/models/digits/versions/3/ready", Route("model_ready", "digits", "3")),
        ("/v2/models/digits/infer", Route("infer", "digits", None, ASK)),
        ("/v2/models/digits/infer/", Route("infer", "digits", None, ASK)),
        ("/v2/models/digits/versions/12/infer", Route("infer", "digits", "12", ASK)),
        ("/v2/models/%64igits/infer", Route("infer", "digits", None, ASK)),
        ("http://gateway:8000/v2/models/digits/infer", Route("infer", "digits", None, ASK)),
        ("http://gateway:8000/v2?x", Route("server")),
        ("/v2/models/versions/infer", Route("infer", "versions", None, ASK)),
        ("/v2/models/ready/ready", Route("model_ready", "ready")),
        ("/metrics", Route("page")),
        ("/health/live", Route("page")),
    ],
)
def test_what_is_there(target: str, route: Route) -> None:
    assert resolve(target.encode()) == route


@pytest.mark.parametrize(
    "target",
    [
        "/", "", "*", "/v1", "/v2x", "/v2/models", "/v2/models/", "/v2/models//infer", "/v2//models/m/infer",
        "/v2/models/m/versions", "/v2/models/m/versions/", "/v2/models/m/infer/x", "/v2/models/m/versions/1/x",
        "/v2/health", "/v2/models/m%00/infer", "/v2/models/a%2Fb/infer", "/v2/models/a.1/infer",
        "/v2/models/m/versions/latest/infer", "/v2/models/m/versions/-1/infer", "/v2/models/" + "m" * 65 + "/infer",
        "/v2/models/%ff/infer", "/v2/models/%C3%BC/infer", "/V2", "http://gateway",
    ],
)  # fmt: skip
def test_what_is_not_there(target: str) -> None:
    route = resolve(target.encode())
    assert (route.kind, route.methods) == ("nothing", READ)
    assert route.error.startswith("There is no ")
    assert route.error.isascii()
    assert route.error.isprintable()
    assert len(route.error) < 400
