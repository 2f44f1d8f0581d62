"""Signatures of webhooks, as the Standard Webhooks specification has them (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

MIN_KEY = 16
"""Bytes a secret must have."""
MARK = "whsec_"


def key_of(secret: str) -> bytes:
    """The key in a secret: base64 behind `whsec_`, or else the secret's own bytes. Raises ValueError."""
    key = secret.encode()
    if secret.startswith(MARK):
        try:
            key = base64.b64decode(secret.removeprefix(MARK), validate=True)
        except binascii.Error:
            raise ValueError(f"what follows {MARK} is no base64") from None
    if len(key) < MIN_KEY:
        raise ValueError(f"it is shorter than {MIN_KEY} bytes")
    return key


def headers(key: bytes | None, *, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """What a receiver tells a message by and, given a key, knows it to be ours by. `at` is Unix time in seconds."""
    told = {"webhook-id": message_id, "webhook-timestamp": str(at)}
    if key is not None:
        signed = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
        told["webhook-signature"] = f"v1,{base64.b64encode(signed).decode()}"
    return told
