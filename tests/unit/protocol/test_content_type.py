from __future__ import annotations

import pytest

from modelmq.errors import Unsupported
from modelmq.protocol import is_json
from modelmq.protocol.content_type import require_json


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/json;",
        "application/json; charset=utf-8",
        'Application/JSON ;charset="UTF-8"',
        "application/json;charset=utf8;q=1",
        "application/json; charset=us-ascii",
    ],
)
def test_json(content_type: str | None) -> None:
    assert is_json(content_type)
    require_json(content_type, {"deadline": 5, "traceparent": "00"})


@pytest.mark.parametrize(
    "content_type",
    [
        "text/json",
        "application/jsonl",
        "application/json; charset=utf-16",
        "application/octet-stream",
        "json",
        ";",
        "\xff",
    ],
)
def test_not_json(content_type: str) -> None:
    assert not is_json(content_type)
    with pytest.raises(Unsupported, match="application/json"):
        require_json(content_type)


def test_binary_tensors_are_named_as_what_they_are() -> None:
    with pytest.raises(Unsupported, match=r"Binary tensors .* are not supported yet"):
        require_json("application/octet-stream")
    with pytest.raises(Unsupported, match="Inference-Header-Content-Length"):
        require_json("application/json", {"inference-header-content-length": "12"})


def test_sentences_are_bounded() -> None:
    with pytest.raises(Unsupported) as caught:
        require_json("x" * 100_000)
    assert len(caught.value.message) < 250
