"""RabbitMQ's stored form of a password: four bytes of salt and a digest over salt and password.

Lets the provisioner see whether the broker already has a password without logging in or sending it. Pure: salt is an
argument. Does not know where passwords are kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SALT_BYTES = 4
_DIGESTS = {"rabbit_password_hashing_sha256": "sha256", "rabbit_password_hashing_sha512": "sha512"}


def password_hash(password: str, salt: bytes) -> str:
    """The salted SHA-256 that RabbitMQ takes and stores; `salt` has SALT_BYTES bytes."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def matches(password: str, stored: str, algorithm: str = "") -> bool:
    """Whether `stored` is the hash of this password. Unknown algorithms and unreadable hashes match nothing."""
    digest = _DIGESTS.get(algorithm or "rabbit_password_hashing_sha256")
    try:
        raw = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return False
    if digest is None or len(raw) <= SALT_BYTES:
        return False
    salt, expected = raw[:SALT_BYTES], raw[SALT_BYTES:]
    return hmac.compare_digest(hashlib.new(digest, salt + password.encode()).digest(), expected)
