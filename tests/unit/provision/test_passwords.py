from __future__ import annotations

import base64
import hashlib

from modelmq.provision.passwords import matches, password_hash


def test_the_example_of_the_manual() -> None:
    # RabbitMQ's guide "Credentials and passwords": salt 908D C60A, password test12.
    assert password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_what_is_stored() -> None:
    stored = password_hash("secret", b"salt")
    assert matches("secret", stored)
    assert matches("secret", stored, "rabbit_password_hashing_sha256")
    assert not matches("Secret", stored)
    longer = base64.b64encode(b"salt" + hashlib.sha512(b"saltsecret").digest()).decode()
    assert matches("secret", longer, "rabbit_password_hashing_sha512")
    for odd in ("", "é", "AAAA", "not base64!"):
        assert not matches("secret", odd)
    assert not matches("secret", stored, "rabbit_password_hashing_md5")
