"""The certificate authorities that are trusted. They are read once: that takes longer than all else a client needs."""

from __future__ import annotations

import os
import ssl
from functools import cache

import httpx


def trusted() -> ssl.SSLContext:
    """Those of the system, or of SSL_CERT_FILE and SSL_CERT_DIR. Blocks for some milliseconds the first time."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _read(file: str | None, folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()  # which looks for both itself
