"""Webhooks: when a run has ended, the address it named is told, in the background and as often as it takes.

Signed as the Standard Webhooks specification has it (https://www.standardwebhooks.com) where there is a secret.
What is still to be told when the process dies is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import httpx
import orjson
import structlog

from threadline.domain import signing
from threadline.domain.egress import Blocked
from threadline.domain.errors import Invalid
from threadline.domain.events import Event
from threadline.domain.records import Run
from threadline.services.egress import Guard
from threadline.services.results import ending_of
from threadline.services.shapes import run_json

log = structlog.get_logger(__name__)

TIMEOUT = 10.0
"""Seconds one attempt may take in all."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds between attempts."""
AT_ONCE = 20
WAITING = 1000
"""How many deliveries may be under way; the next one is dropped, with a line in the log."""
GRACE = 2.0
"""Seconds that deliveries have to end when the service stops."""
AGAIN = frozenset({408, 425, 429})
"""Statuses after which it is tried again, besides all from 500 on."""


class States(Protocol):
    """Reads the JSON of a state."""

    async def at(self, run: Run, ns: tuple[str, ...], checkpoint_id: str) -> bytes: ...


class Webhooks:
    def __init__(
        self,
        *,
        http: httpx.AsyncClient,
        guard: Guard,
        states: States,
        secret: str | None = None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """`http` must be guarded itself: what was vetted when the run began may lead elsewhere when it ends."""
        self._http = http
        self._guard = guard
        self._states = states
        self._key = signing.key_of(secret) if secret is not None else None
        self._pauses = pauses
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Deliver until left."""
        try:
            yield
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=GRACE)
            left = set(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if left:
                log.warning("webhooks_lost", deliveries=len(left))
            await self._http.aclose()

    async def check(self, url: str) -> None:
        """Raises Invalid for an address nobody is to be sent to."""
        try:
            await self._guard.check(url)
        except Blocked as error:
            raise Invalid(f"Webhook host blocked: {error.message}") from None

    def ended(self, run: Run, events: Sequence[Event]) -> None:
        """Tell whom it concerns that `run` is as it is now; `events` is its whole log."""
        url = run.kwargs.get("webhook")
        if not url:
            return
        if len(self._tasks) >= WAITING:
            log.warning("webhook_dropped", run_id=run.run_id)
            return
        task = asyncio.create_task(self._deliver(run, events, url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, run: Run, events: Sequence[Event], url: str) -> None:
        try:
            body = await self._body(run, events)
            async with self._slots:
                attempts, told = await self._post(run.run_id, url, body)
        except Exception:
            log.exception("webhook_failed", run_id=run.run_id)
            return
        if told == "ok":
            log.info("webhook_sent", run_id=run.run_id, attempts=attempts)
        else:
            log.warning("webhook_failed", run_id=run.run_id, attempts=attempts, reason=told)

    async def _body(self, run: Run, events: Sequence[Event]) -> bytes:
        result = await ending_of(events).result(lambda checkpoint_id: self._states.at(run, (), checkpoint_id))
        began = next((event.at for event in events if event.type == "run"), None)
        document = {
            **run_json(run),
            "run_started_at": _time(began),
            "run_ended_at": _time(events[-1].at),
            "webhook_sent_at": datetime.now(UTC).isoformat(),
            "values": orjson.Fragment(result.values if result is not None else b"{}"),
        }
        if result is not None and result.error is not None:
            document["error"] = result.error
        return orjson.dumps(document)

    async def _post(self, run_id: str, url: str, body: bytes) -> tuple[int, str]:
        """How many attempts it took, and `ok` or why the last one failed."""
        told = ""
        for attempt, pause in enumerate((*self._pauses, None), start=1):
            told, again = await self._attempt(run_id, url, body)
            if not again or pause is None:
                return attempt, told
            await asyncio.sleep(pause)
        return 0, told

    async def _attempt(self, run_id: str, url: str, body: bytes) -> tuple[str, bool]:
        """`ok` or what went wrong, and whether it is worth trying again. The answer's body is never read."""
        signed = signing.headers(self._key, message_id=f"run_{run_id}", at=int(time.time()), body=body)
        headers = {"Content-Type": "application/json", **signed}
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream("POST", url, content=body, headers=headers) as response,
            ):
                status = response.status_code
        except Blocked as error:
            return error.message, error.retryable
        except TimeoutError:
            return "timeout", True
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__, True
        if 200 <= status < 300:
            return "ok", False
        return f"status {status}", status in AGAIN or status >= 500


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
