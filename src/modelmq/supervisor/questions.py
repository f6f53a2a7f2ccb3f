"""One question to a running gateway over HTTP: a real one where a model brings its own, else one made of zeros.

The last step of coming up, and proof that the whole path works. Knows the HTTP API only; how an answer came about
is not its business.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import httpx
import msgspec

from modelmq.demo import sample
from modelmq.errors import ModelMQError
from modelmq.metadata import Signature, TensorSpec
from modelmq.protocol import error_message
from modelmq.protocol.json_codec import encode_request
from modelmq.runtimes import warm_up_inputs
from modelmq.supervisor.progress import Asked

_VALUES_SHOWN = 5
_LONGEST_ANSWER = 300
_TIMEOUT_S = 60.0


class Question(msgspec.Struct, frozen=True):
    """A request in a file, so that it can be asked again. `truth` is the right answer, empty where it is not known."""

    model: str
    path: Path
    body: bytes
    truth: str = ""


async def question(http: httpx.AsyncClient, models_dir: Path, questions_dir: Path, model: str) -> Question | None:
    """The model's own sample, or one of zeros; None for a model that does not say what it takes."""
    found = sample(models_dir, model)
    if found is not None:
        return Question(model, found.path, found.body, "" if found.truth is None else str(found.truth))
    body = await _zeros(http, model)
    if body is None:
        return None
    path = questions_dir / f"{model}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(body)
    return Question(model, path, body)


async def ask(http: httpx.AsyncClient, asked: Question) -> Asked:
    """Raises ModelMQError when there is no good answer."""
    model, path, body = asked.model, asked.path, asked.body
    url = f"/v2/models/{model}/infer"
    headers = {"content-type": "application/json"}
    try:
        response = await http.post(url, content=body, headers=headers, timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise ModelMQError(f"The gateway did not answer the first question: {error}.") from error
    if response.status_code != 200:
        raise ModelMQError(
            f"The first question, {path}, was answered {response.status_code}: {error_message(response.content)}"
        )
    return Asked(model, curl(str(http.base_url).rstrip("/") + url, path), answer_text(response.content), asked.truth)


def curl(url: str, path: Path, here: Path | None = None) -> str:
    """A line for any shell that sends the file; the path is relative where the file is below `here`."""
    here = here or Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"curl -s -H 'Content-Type: application/json' -d {shlex.quote(f'@{shown}')} {shlex.quote(url)}"


def answer_text(body: bytes) -> str:
    """`label: 4; probabilities: 0.01, 0.02 …`, the outputs of a response in a line."""
    try:
        outputs = msgspec.json.decode(body)["outputs"]
        parts = [f"{output['name']}: {_values(output['data'])}" for output in outputs]
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:_LONGEST_ANSWER].decode("utf-8", "replace")
    text = "; ".join(parts)
    return text if len(text) <= _LONGEST_ANSWER else text[:_LONGEST_ANSWER] + " …"


def _values(data: list[Any]) -> str:
    shown = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in data[:_VALUES_SHOWN])
    return f"{shown} …" if len(data) > _VALUES_SHOWN else shown


async def _zeros(http: httpx.AsyncClient, model: str) -> bytes | None:
    """A request that fits what the gateway says of the model's inputs."""
    try:
        response = await http.get(f"/v2/models/{model}")
        specs = msgspec.convert(response.json()["inputs"], tuple[TensorSpec, ...])
    except (httpx.HTTPError, ValueError, KeyError, TypeError, msgspec.ValidationError):
        return None
    made = warm_up_inputs(Signature("", specs, (), batched=False))
    return encode_request(made) if made else None
