"""Mistakes in a stack's config: one sentence, and nothing of Python."""

from __future__ import annotations

import pytest

from tests.infra.engine import Program


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("broker.admin_password", "wrong", 'the user "modelmq-admin" or its password is wrong'),
        ("broker.management_url", "http://127.0.0.1:1", "The management API at http://127.0.0.1:1 cannot be reached"),
        ("models", [{"name": "a/b"}], 'Model "a/b": the model name "a/b" must be 1 to 64 letters, digits, - and _'),
        ("models", [{"name": "a", "queue": "b@c"}], 'Model "a", setting queue: "b@c" must be 1 to 250 letters'),
    ],
)
def test_a_mistake_is_one_sentence(key: str, value: object, sentence: str, stack: Program) -> None:
    before = (stack.path / "Pulumi.dev.yaml").read_text()
    stack.config(key, value)
    refused = stack.pulumi("preview", status=None)
    (stack.path / "Pulumi.dev.yaml").write_text(before)
    assert refused.status
    assert sentence in refused
    assert "Traceback" not in refused
