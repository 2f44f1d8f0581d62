"""Who asks: API keys to callers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from pydantic import SecretStr

from threadline.domain.errors import Denied
from threadline.domain.records import Caller

LOCAL = Caller("local")
"""The one caller of a service without keys."""


class Keys:
    """The keys callers may show. Only their hashes are kept."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def caller(self, key: str | None) -> Caller:
        """The caller a key stands for; Denied without a known one. Every known key is compared, in constant time."""
        if not self._digests:
            return LOCAL
        shown = _digest(key or "")
        known = [hmac.compare_digest(shown, digest) for digest in self._digests]
        if not any(known):
            raise Denied("A valid API key is needed: Authorization: Bearer … or x-api-key.")
        return Caller(f"key-{shown[:16]}")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
