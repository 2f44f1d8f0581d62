"""Webhooks: when a run has ended, the address it named is told, in the background and as often as it takes.

What is to be told is kept with the run's end, until it is told or given up, so it outlives the process: at least once,
always under the same `webhook-id`. Signed as the Standard Webhooks specification has it
(https://www.standardwebhooks.com) where there is a secret.
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

from threadline.domain import ports, signing
from threadline.domain.egress import Blocked
from threadline.domain.errors import Invalid
from threadline.domain.events import Event
from threadline.domain.records import Delivery, Run
from threadline.services.egress import Guard
from threadline.services.hook_policy import HookPolicy
from threadline.services.results import ending_of
from threadline.services.shapes import run_json

log = structlog.get_logger(__name__)

TIMEOUT = 10.0
"""Seconds one attempt may take in all."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds between attempts."""
AT_ONCE = 20
WAITING = 1000
"""How many deliveries may be under way; the others are taken up when these are done."""
GRACE = 2.0
"""Seconds that deliveries have to end when the service stops; the next start takes up the others."""
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
        deliveries: ports.Deliveries,
        policy: HookPolicy,
        secret: str | None = None,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """`http` must be guarded itself: what was vetted when the run began may lead elsewhere when it ends."""
        self._http = http
        self._guard = guard
        self._states = states
        self._deliveries = deliveries
        self._policy = policy
        self._key = signing.key_of(secret) if secret is not None else None
        self._pauses = pauses
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._behind = False
        self._catching_up: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Deliver until left, first what an earlier process left."""
        await self._take_up()
        try:
            yield
        finally:
            self._behind = False
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=GRACE)
            left = [*self._tasks.values(), *([self._catching_up] if self._catching_up else [])]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if left:
                log.info("webhooks_left", deliveries=len(left))
            await self._http.aclose()

    async def check(self, url: str) -> None:
        """Raises Invalid for an address nobody is to be sent to."""
        self._policy.check(url)
        try:
            await self._guard.check(url)
        except Blocked as error:
            raise Invalid(f"Webhook host blocked: {error.message}") from None

    async def prepare(self, run: Run, events: Sequence[Event], *, undone: bool = False) -> Delivery | None:
        """What is to be told of `run`, as it is now; `events` is its whole log. None if nobody is. `undone`: what it
        has written is taken back."""
        url = run.kwargs.get("webhook")
        if not url or self._policy.off:
            return None
        try:
            async with asyncio.timeout(TIMEOUT):
                body = await self._body(run, events, undone=undone)
        except Exception:  # a graph that cannot read its own state must not keep the run from ending
            log.exception("webhook_failed", run_id=run.run_id)
            return None
        thread_id = None if run.kwargs.get("temporary") else run.thread_id
        return Delivery(run.run_id, thread_id, url, body, datetime.now(UTC))

    async def keep(self, delivery: Delivery) -> None:
        """Keep what is to be told of a run that is not kept itself."""
        await self._deliveries.put(delivery)

    def send(self, delivery: Delivery) -> None:
        """Tell what is kept by now."""
        if len(self._tasks) >= WAITING:
            self._behind = True
            return
        earlier = self._tasks.pop(delivery.run_id, None)
        if earlier is not None:  # of the same run, before a crash
            earlier.cancel()
        task = self._tasks[delivery.run_id] = asyncio.create_task(self._deliver(delivery))

        def done(task: asyncio.Task[None]) -> None:
            if self._tasks.get(delivery.run_id) is task:
                del self._tasks[delivery.run_id]
            if self._behind and len(self._tasks) < WAITING // 2:
                self._behind = False
                self._catching_up = asyncio.create_task(self._take_up())

        task.add_done_callback(done)

    async def _take_up(self) -> None:
        try:
            pending = await self._deliveries.pending(limit=WAITING)
        except Exception:
            log.exception("webhooks_not_read")
            return
        for delivery in pending:
            if delivery.run_id not in self._tasks:
                self.send(delivery)
        self._behind = self._behind or len(pending) == WAITING

    async def _deliver(self, delivery: Delivery) -> None:
        run_id, attempts = delivery.run_id, delivery.attempts
        try:
            while True:
                async with self._slots:
                    told, again = await self._attempt(delivery)
                attempts += 1
                if not again or attempts > len(self._pauses):
                    break
                await self._deliveries.tried(run_id, attempts)
                await asyncio.sleep(self._pauses[attempts - 1])
            await self._deliveries.remove(run_id)
        except Exception:
            log.exception("webhook_failed", run_id=run_id)
            return
        if told == "ok":
            log.info("webhook_sent", run_id=run_id, attempts=attempts)
        else:
            log.warning("webhook_failed", run_id=run_id, attempts=attempts, reason=told)

    async def _body(self, run: Run, events: Sequence[Event], *, undone: bool) -> bytes:
        result = await ending_of(events).result(lambda checkpoint_id: self._states.at(run, (), checkpoint_id))
        began = next((event.at for event in events if event.type == "run"), None)
        document = {
            **run_json(run),
            "run_started_at": _time(began),
            "run_ended_at": _time(events[-1].at),
            "webhook_sent_at": datetime.now(UTC).isoformat(),
            "values": orjson.Fragment(result.values if result is not None and not undone else b"{}"),
        }
        if result is not None and result.error is not None:
            document["error"] = result.error
        return orjson.dumps(document)

    async def _attempt(self, delivery: Delivery) -> tuple[str, bool]:
        """`ok` or what went wrong, and whether it is worth trying again. The answer's body is never read."""
        body, message_id = delivery.body, f"run_{delivery.run_id}"
        signed = signing.headers(self._key, message_id=message_id, at=int(time.time()), body=body)
        headers = httpx.Headers(self._policy.headers)
        headers.update({"Content-Type": "application/json", **signed})
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.stream("POST", delivery.url, content=body, headers=headers) as response,
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
