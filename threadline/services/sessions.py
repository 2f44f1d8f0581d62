"""Sessions: the live copy of a thread, renewed with every use and rebuilt from the history once it has expired."""

from __future__ import annotations

from typing import Any

import structlog

from threadline.domain import ports
from threadline.domain.errors import Unavailable
from threadline.domain.events import Event, is_tool_part
from threadline.domain.records import Run, Thread, Turn
from threadline.services import turns as words

log = structlog.get_logger(__name__)

EVERY_TURN = 1_000_000
NOTHING = words.Beside()


class Sessions:
    """Keeps session documents in step with the turns. While Redis is away the history alone answers."""

    def __init__(self, *, live: ports.LiveSessions, threads: ports.Threads, turns: ports.Turns) -> None:
        self._live = live
        self._threads = threads
        self._turns = turns

    async def document(self, thread: Thread, *, without: words.Beside = NOTHING) -> dict[str, Any]:
        """`{session_id, created_at, messages, context}`; an expired session is live again afterwards.

        What was said elsewhere is left out, if `without` says what.
        """
        try:
            document = await self._live.read(thread.thread_id)
            if document is None:
                document = await self._rebuilt(thread)
                await self._live.open(document)
        except Unavailable:
            log.debug("live_sessions_away")
            document = await self._rebuilt(thread)
        if without != NOTHING:
            said = [message for message in document["messages"] if not without.hides(message)]
            document = {**document, "messages": said}
        return document

    async def begin(self, run: Run) -> None:
        """A run has begun: its question joins the document."""
        if not run.kwargs.get("message") or not words.asks(run.kwargs) or run.kwargs.get("temporary"):
            return
        question = words.asked(run.kwargs["message"], at=run.created_at, turn_id=run.turn_id)
        try:
            if run.attempt > 1 and await self._asked_before(run):
                return
            await self._append(run.thread_id, question, {})
        except Unavailable:
            log.debug("live_sessions_away")

    async def note(self, thread_id: str, event: Event) -> None:
        """Say in the document's context which tool is at work."""
        data = event.data
        if not is_tool_part(data):
            return
        running = data["status"] == "started"
        context = {"current_tool": data["name"] if running else None, "last_action": f"tool:{data['name']}"}
        try:
            await self._live.note(thread_id, context)
        except Unavailable:
            log.debug("live_sessions_away")

    async def complete(self, turn: Turn, last_node: str | None) -> None:
        """A run has ended and is in the history: its answer joins the document."""
        answer = words.answer(turn)
        context = {"current_tool": None, "last_action": last_node}
        try:
            if answer is not None:
                await self._append(turn.session_id, answer, context)
            else:
                await self._live.note(turn.session_id, context)
        except Unavailable:
            log.debug("live_sessions_away")

    async def live(self, thread_ids: list[str]) -> set[str]:
        try:
            return await self._live.live(thread_ids)
        except Unavailable:
            return set()

    async def forget(self, thread_id: str) -> None:
        """Let the document be built anew from the history: what it says has been undone."""
        try:
            await self._live.delete(thread_id)
        except Unavailable:
            log.debug("live_sessions_away")

    async def delete(self, thread_id: str) -> None:
        try:
            await self._live.delete(thread_id)
        except Unavailable as error:
            raise Unavailable("Redis is away, so the session cannot be deleted whole. Try again later.") from error

    async def _append(self, thread_id: str, message: dict[str, Any], context: dict[str, Any]) -> None:
        if await self._live.append(thread_id, message, context=context):
            return
        thread = await self._threads.get(thread_id)
        if thread is None:
            return
        document = await self._rebuilt(thread)
        if message not in document["messages"]:
            document["messages"].append(message)
        document["context"].update(context)
        await self._live.open(document)

    async def _asked_before(self, run: Run) -> bool:
        document = await self._live.read(run.thread_id)
        messages = document["messages"] if document else []
        return any(m["role"] == "user" and m["metadata"].get("turn_id") == run.turn_id for m in messages)

    async def _rebuilt(self, thread: Thread) -> dict[str, Any]:
        turns = await self._turns.list(thread.thread_id, limit=EVERY_TURN)
        return words.document(thread, reversed(turns))
