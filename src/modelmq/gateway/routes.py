"""What a request's target asks for: paths of the Open Inference Protocol V2 and the service's own pages.

Pure. Percent-encoding is decoded, trailing slashes are ignored; a name that no model can have is told so at once.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import unquote

import msgspec

from modelmq.metadata import MODEL_NAME, VERSION

Kind = Literal["infer", "live", "ready", "server", "model", "model_ready", "page", "nothing"]

READ = ("GET", "HEAD")
ASK = ("POST",)
PAGES = ("/metrics", "/health/live", "/health/ready")
_LONGEST_SHOWN = 80


class Route(msgspec.Struct, frozen=True):
    """`error` is why there is `nothing`."""

    kind: Kind
    model: str = ""
    version: str | None = None
    methods: tuple[str, ...] = READ
    error: str = ""

    @property
    def key(self) -> tuple[str, str | None]:
        """Model and version."""
        return self.model, self.version


def resolve(target: bytes) -> Route:
    """The route of a request line's target, whatever it is."""
    path = _path(target)
    if path in PAGES:
        return Route("page")
    match [unquote(part) for part in path.rstrip("/").split("/")]:
        case ["", "v2"]:
            return Route("server")
        case ["", "v2", "health", "live"]:
            return Route("live")
        case ["", "v2", "health", "ready"]:
            return Route("ready")
        case ["", "v2", "models", model, *rest] if model:
            return _of_model(path, model, rest)
        case _:
            return _nothing(path)


def _path(target: bytes) -> str:
    text = target.decode("latin-1").partition("?")[0].partition("#")[0]
    if not text.startswith("/") and "://" in text:  # the absolute form, which proxies send
        _, slash, rest = text.partition("://")[2].partition("/")
        text = slash + rest
    return text


def _of_model(path: str, model: str, rest: list[str]) -> Route:
    if not MODEL_NAME.match(model):
        shown = ascii(model[:_LONGEST_SHOWN])
        return _error(f"There is no model {shown}: a name has 1 to 64 letters, digits, - and _.")
    version = None
    if len(rest) >= 2 and rest[0] == "versions":
        version = rest[1]
        rest = rest[2:]
        if not VERSION.match(version):
            return _error(f"There is no version {version[:_LONGEST_SHOWN]!a} of {model}: it is a whole number.")
    match rest:
        case []:
            return Route("model", model, version)
        case ["ready"]:
            return Route("model_ready", model, version)
        case ["infer"]:
            return Route("infer", model, version, ASK)
        case _:
            return _nothing(path)


def _nothing(path: str) -> Route:
    shown = ascii(path[:_LONGEST_SHOWN])[1:-1]
    return _error(f"There is no {shown} here; the API begins at /v2, a model is asked at /v2/models/<name>/infer.")


def _error(sentence: str) -> Route:
    return Route("nothing", error=sentence)
