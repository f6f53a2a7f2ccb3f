"""Waits until the gateway says of each model that it is ready, or why it is not.

Asked after the workers are up, so that what is not ready soon has failed. Knows the HTTP API only.
"""

from __future__ import annotations

import asyncio
import time

import httpx

from modelmq.errors import ModelMQError
from modelmq.protocol import error_message

_INTERVAL_S = 0.05
_PATIENCE_S = 3.0
"""Gateways ask workers every second."""


async def await_ready(
    http: httpx.AsyncClient, models: tuple[str, ...], patience_s: float = _PATIENCE_S
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models that are ready, and one sentence for each that is not. Raises ModelMQError without a gateway."""
    ready: dict[str, bool] = {}
    why: dict[str, str] = {}
    deadline = time.monotonic() + patience_s
    while True:
        for model in models:
            if model not in ready:
                said = await _not_ready(http, model)
                if said is None:
                    ready[model] = True
                else:
                    why[model] = said
        if len(ready) == len(models) or time.monotonic() >= deadline:
            break
        await asyncio.sleep(_INTERVAL_S)
    waiting = tuple(f"The model {model} is not served: {why[model]}" for model in models if model not in ready)
    return tuple(model for model in models if model in ready), waiting


async def _not_ready(http: httpx.AsyncClient, model: str) -> str | None:
    try:
        response = await http.get(f"/v2/models/{model}/ready")
    except httpx.HTTPError as error:
        raise ModelMQError(f"The gateway at {http.base_url} does not answer: {error}.") from error
    return None if response.status_code == 200 else error_message(response.content)
