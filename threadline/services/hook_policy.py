"""What a project says of webhooks: which addresses may be named, and what every delivery shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from threadline.domain.errors import Invalid

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HookPolicy:
    """`domains` are host names, or `*.name` for those below a name; none allows all, and so do no `ports`. With `off`
    nobody is told."""

    https_only: bool = False
    domains: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()
    longest: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    off: bool = False

    def check(self, url: str) -> None:
        """Raises Invalid for what the project does not allow. Whether an address may be reached is not asked here."""
        if self.longest is not None and len(url) > self.longest:
            raise Invalid("Webhook URL too long")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            return  # the guard has words for it
        if not parsed.is_absolute_url:
            return
        if self.https_only and parsed.scheme != "https":
            raise Invalid("Webhook must use https")
        port = parsed.port or PORTS.get(parsed.scheme, 0)
        if self.ports and port not in self.ports:
            raise Invalid(f"Webhook port {port} not allowed")
        host = parsed.raw_host.decode("ascii").rstrip(".").lower()
        if self.domains and not any(_matches(host, domain.lower()) for domain in self.domains):
            raise Invalid("Webhook domain not allowed")


def _matches(host: str, domain: str) -> bool:
    return host.endswith(domain[1:]) and host != domain[2:] if domain.startswith("*.") else host == domain
