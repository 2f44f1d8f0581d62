"""The data layer: Redis, SQLite and the tiered checkpoint saver. Only `threadline.app` imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadline.storage.checkpoints import open_saver

__all__ = ["open_saver"]


def __getattr__(name: str) -> Any:
    """Import LangGraph's savers when one is opened, not with the first record that is read."""
    if name == "open_saver":
        from threadline.storage.checkpoints import open_saver

        return open_saver
    raise AttributeError(name)
