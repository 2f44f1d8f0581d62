"""Which headers of a request the graph it starts is told of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

KEPT_BACK = frozenset({"authorization", "x-api-key", "x-tenant-id", "x-service-key"})
"""Never told: what a caller proves itself by."""
RESERVED = ("langgraph_auth_", "__pregel_")
"""How no client may begin a name in a config: who asks, and how LangGraph works within."""


@dataclass(frozen=True)
class HeaderChoice:
    """Names of headers; a `*` stands for any characters. `excludes` has the last word."""

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def of(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Those chosen of some headers, whose names are in small letters."""
        return {name: value for name, value in headers if self._chosen(name)}

    def _chosen(self, name: str) -> bool:
        if name in KEPT_BACK or name.startswith(RESERVED) or self._excluded.fullmatch(name):
            return False
        return self._included.fullmatch(name) is not None

    @cached_property
    def _included(self) -> re.Pattern[str]:
        return _any_of(self.includes)

    @cached_property
    def _excluded(self) -> re.Pattern[str]:
        return _any_of(self.excludes)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    parts = [".*".join(map(re.escape, pattern.lower().split("*"))) for pattern in patterns]
    return re.compile("|".join(parts) or r"(?!)")
