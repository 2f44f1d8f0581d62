"""Every Redis key name. What no function here names, and `PERMANENT` does not list, must not be in Redis."""

from __future__ import annotations

from urllib.parse import quote

PERMANENT: frozenset[str] = frozenset()
"""Keys that live without a TTL. There are none: nothing is listed or searched in Redis, so no index is needed."""


def live_checkpoint(thread_id: str, checkpoint_ns: str) -> str:
    """The newest checkpoint of a live thread, named as langgraph-checkpoint-redis names it.

    A thread id is quoted, which leaves a UUID as it is, so no two pairs of thread and namespace share a key.
    """
    return f"checkpoint:{quote(thread_id, safe='')}:{checkpoint_ns}"


def session(session_id: str) -> str:
    """The document of a live session."""
    return f"threadline:session:{session_id}"


def run_log(run_id: str) -> str:
    """The log of a run that is going on."""
    return f"threadline:run:{run_id}:log"
