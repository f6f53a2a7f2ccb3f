"""Gateway and worker as processes of their own that log in by client certificate, without any password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.authority import Authority

pytestmark = [pytest.mark.broker, pytest.mark.both_brokers]
Async = Callable[..., Awaitable[Any]]


async def test_a_request_goes_all_the_way(
    make_model: Callable[..., None], declare: Async, spawn: Async, broker: Any, vhost: Any, authority: Authority
) -> None:
    make_model("double")
    await declare(broker)
    environ = {
        "MODELMQ_BROKER_HOSTS": f"localhost:{vhost.node.amqps_port}",
        "MODELMQ_BROKER_TLS": "true",
        "MODELMQ_BROKER_CA_FILE": vhost.node.ca_file,
        "MODELMQ_BROKER_AUTH": "external",
        "MODELMQ_BROKER_USERNAME": "",
        "MODELMQ_BROKER_PASSWORD": "",
    }
    for service in ("worker", "gateway"):
        own = authority.issue(vhost.username, client=True)
        files = {"MODELMQ_BROKER_CERT_FILE": own.cert_file, "MODELMQ_BROKER_KEY_FILE": own.key_file}
        child = await spawn(service, broker, **environ, **files)
    address = next(line["address"] for line in child.lines() if "address" in line)
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [21.0]}
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=30) as http:
        while (await http.get("/v2/models/double/ready")).status_code != 200:
            pass
        answer = await http.post("/v2/models/double/infer", json={"inputs": [tensor]})
    assert answer.json()["outputs"][0]["data"] == [42.0]
