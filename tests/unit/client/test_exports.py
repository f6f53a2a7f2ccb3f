from __future__ import annotations

import subprocess
import sys

import pytest

import modelmq
import modelmq.client
import modelmq.client.api


def test_the_public_names() -> None:
    assert modelmq.__all__ == ["Client", "Retry"]
    assert sorted(modelmq.client.__all__) == ["Request", "Requester"]
    assert modelmq.Client is modelmq.client.api.Client


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Server"):
        modelmq.Server  # noqa: B018


def test_importing_the_package_loads_nothing() -> None:
    code = "import modelmq, sys; sys.exit(any(name in sys.modules for name in ('numpy', 'msgspec', 'asyncio')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
