"""Turns as rows of `chat_history` and as messages of the session document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from threadline.domain.records import Thread, Turn


def joined(before: Turn | None, now: Turn) -> Turn:
    """The turn's one row after a further run: what was said before a resume counts too."""
    if before is None:
        return now
    known = (before.tokens_used, now.tokens_used)
    costs = (before.cost, now.cost)
    return replace(
        now,
        user_message=before.user_message,
        assistant_message=now.assistant_message or before.assistant_message,
        tools_used=unique([*before.tools_used, *now.tools_used]),
        model_used=now.model_used or before.model_used,
        tokens_used=None if None in known else sum(tokens for tokens in known if tokens is not None),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        created_at=before.created_at,
        extra_metadata={
            **{key: value for key, value in before.extra_metadata.items() if key != "error"},
            **now.extra_metadata,
            "run_ids": unique([*before.extra_metadata["run_ids"], *now.extra_metadata["run_ids"]]),
        },
    )


def unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def question(turn: Turn) -> dict[str, Any] | None:
    """The user's side of a turn as a message of the session document; a re-run asks nothing anew as a rule."""
    if turn.user_message is None or not asks(turn.extra_metadata):
        return None
    return asked(turn.user_message, at=turn.created_at, turn_id=turn.extra_metadata["turn_id"])


def asks(kwargs: Mapping[str, Any]) -> bool:
    """Whether a run asks what its session has not been asked: a re-run does if its message was changed, or if it goes
    on in a session of its own. `kwargs` are the run's, or its turn's metadata."""
    changes = kwargs.get("changes") or {}
    return "rerun_of" not in kwargs or changes.get("message") is not None or changes.get("into") == "session"


def asked(text: str, *, at: datetime, turn_id: str) -> dict[str, Any]:
    return {"role": "user", "content": text, "timestamp": at.isoformat(), "metadata": {"turn_id": turn_id}}


def answer(turn: Turn) -> dict[str, Any] | None:
    """The agent's side of a turn; None where nothing was said."""
    if not turn.assistant_message:
        return None
    extra = turn.extra_metadata
    return {
        "role": "assistant",
        "content": turn.assistant_message,
        "timestamp": extra["ended_at"],
        "metadata": {
            "turn_id": extra["turn_id"],
            "run_id": extra["run_ids"][-1],
            "status": extra["status"],
            "tools": turn.tools_used,
            "model": turn.model_used,
            "tokens": turn.tokens_used,
            "cost": turn.cost,
        },
    }


@dataclass(frozen=True, slots=True)
class Beside:
    """What a line of checkpoints does not know of: `runs` that have nothing on it, and those that `ended` elsewhere. Of
    the latter it may know what was asked."""

    runs: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()

    def hides(self, message: Mapping[str, Any]) -> bool:
        """Whether a message of the session document is of no concern."""
        metadata = message["metadata"]
        return metadata["run_id"] in self.ended if "run_id" in metadata else metadata["turn_id"] in self.runs

    def shown(self, turn: Turn) -> Turn:
        """The turn, without an answer that was given elsewhere."""
        extra = turn.extra_metadata
        if extra["run_ids"][-1] not in self.ended:
            return turn
        return replace(turn, assistant_message=None, extra_metadata={**extra, "status": "interrupted"})


def document(thread: Thread, turns: Iterable[Turn]) -> dict[str, Any]:
    """The session document, built from the history (`turns` oldest first)."""
    messages = [message for turn in turns for message in (question(turn), answer(turn)) if message]
    return {
        "session_id": thread.thread_id,
        "created_at": thread.created_at.isoformat(),
        "messages": messages,
        "context": {"current_tool": None, "last_action": None},
    }
