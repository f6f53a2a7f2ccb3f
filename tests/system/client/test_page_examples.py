"""The programs in docs/python-client.md and docs/message-contract.md run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelmq.amqp import Delivery
from modelmq.metadata import Signature
from modelmq.protocol.json_codec import decode_request, encode_response

pytestmark = pytest.mark.broker

DOCS = Path(__file__).parents[3] / "docs"
SHOWN = {
    "python-client.md": ["[0]", "100", "10", "not_found False"],
    "message-contract.md": [
        '{"model_name":"digits","model_version":"1","outputs":'
        '[{"name":"label","datatype":"INT64","shape":[1],"data":[0]}]}'
    ],
}


def programs() -> Iterator[Any]:
    for page, shown in SHOWN.items():
        found = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for number, (program, output) in enumerate(zip(found, shown, strict=True)):
            yield pytest.param(program, output, id=f"{page}-{number}")


def label(delivery: Delivery) -> bytes:
    request = decode_request(delivery.body, Signature("test", (), (), batched=False))
    (given,) = request.inputs.values()
    assert (given.shape, given.dtype) == ((1, 64), np.float32)
    return encode_response("digits", "1", request.id, {"label": np.zeros(1, np.int64)})


@pytest.mark.parametrize(("program", "output"), list(programs()))
async def test_a_program_of_the_pages_runs(broker: Any, vhost: Any, program: str, output: str) -> None:
    await broker.provision()
    await broker.channel.bind_queue("ml-model.echo.interactive", "ml-model-exchange", "digits")
    broker.respond = label
    await broker.echo()
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "MODELMQ_AMQP_URL": vhost.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip() == output
