"""Crons: runs that start by the clock, the way every run starts.

A cron that is due is given its next time and taken in one transaction, then its run is started. So no time is ever
served twice, and a crash just between the two loses that one time. What was missed while the service was down is made
up for once, however often it would have run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import structlog
from langgraph_sdk.auth.exceptions import HTTPException

from threadline.domain import ports
from threadline.domain.errors import Invalid, Missing, Rejected, ThreadlineError
from threadline.domain.records import Caller, Cron, CronQuery, Thread, system_assistant_id
from threadline.services.assistants import Assistants
from threadline.services.calls import Calls, RunBody
from threadline.services.payload import jsonable
from threadline.services.permission import Permission, configurable, metadata_in, user_of
from threadline.services.runs import Runs
from threadline.services.schedule import next_time
from threadline.services.threads import as_uuid

log = structlog.get_logger(__name__)

PAGE = 100
CLOCK_SECONDS = 60.0
"""How long a wait trusts the clock: after that it is read again, since it may have been set or the machine slept."""
RETRY_SECONDS = 10.0
"""Until it is tried again when the history cannot be read."""
OF_THE_CRON = frozenset({"schedule", "timezone", "end_time", "enabled", "on_run_completed", "metadata"})
"""Fields of a change that ask nothing of a graph."""

Completion = Literal["delete", "keep"]


@dataclass(frozen=True, slots=True)
class NewCron:
    """`payload` is the body as it was sent, as JSON types; its metadata are the cron's."""

    assistant: str
    schedule: str
    payload: dict[str, Any]
    timezone: str | None = None
    end_time: datetime | None = None
    enabled: bool = True
    on_run_completed: Completion = "delete"


class Crons:
    """Every caller sees its own, or what an auth handler lets it. Any other is missing, like one that never was."""

    def __init__(
        self,
        crons: ports.Crons,
        *,
        calls: Calls,
        runs: Runs,
        assistants: Assistants,
        permission: Permission,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._crons = crons
        self._calls = calls
        self._runs = runs
        self._assistants = assistants
        self._permission = permission
        self._now = now
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start what is due until left."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def create(self, new: NewCron, caller: Caller, *, thread: Thread | None) -> Cron:
        """Raises Invalid, Missing, Forbidden or Rejected."""
        now, cron_id = self._now(), uuid4()
        value: dict[str, Any] = {
            "payload": _marked(new.payload, str(cron_id)),
            "schedule": new.schedule,
            "cron_id": cron_id,
            "thread_id": UUID(thread.thread_id) if thread is not None else None,
            "user_id": caller.id,
            "end_time": new.end_time,
            # The payload's own, so that what a handler writes stands in both.
            "metadata": new.payload.get("metadata") or {},
        }
        await self._permission.ask(caller, "crons", "create", value)
        try:
            assistant = await self._assistants.resolve(new.assistant, caller)
        except (Invalid, Missing):
            raise Missing(f"Assistant '{new.assistant}' not found") from None
        user = configurable(caller)
        cron = Cron(
            str(cron_id),
            assistant.assistant_id,
            caller.id,
            value["schedule"],
            _marked({**value["payload"], "assistant_id": assistant.assistant_id}, str(cron_id)),
            now,
            now,
            thread_id=thread.thread_id if thread is not None else None,
            timezone=new.timezone,
            end_time=value["end_time"],
            on_run_completed=new.on_run_completed,
            enabled=new.enabled,
            metadata=metadata_in(value),
            user=jsonable(user) if user else None,
        )
        cron = replace(cron, next_run_at=_following(cron, now))
        await self._calls.request(_body(cron), caller=caller, thread_id=cron.thread_id)
        await self._crons.create(cron)
        self._changed.set()
        return cron

    async def get(self, cron_id: str, caller: Caller) -> Cron:
        """Raises Invalid, Missing or Forbidden."""
        return await self._find(caller, "read", {"cron_id": _uuid(cron_id)})

    async def search(self, wanted: CronQuery, caller: Caller) -> tuple[Sequence[Cron], int, CronQuery]:
        """One page of those the caller sees, how many there are in all, and the query as an auth handler left it.
        Raises Forbidden."""
        value: dict[str, Any] = {
            "assistant_id": _as_uuid(wanted.assistant_id),
            "thread_id": _as_uuid(wanted.thread_id),
            "limit": wanted.limit,
            "offset": wanted.offset,
            "metadata": dict(wanted.metadata),
        }
        grant = await self._permission.ask(caller, "crons", "search", value)
        query = replace(
            wanted,
            owner=grant.owner,
            allowed=grant.allowed,
            assistant_id=_as_text(value["assistant_id"]),
            thread_id=_as_text(value["thread_id"]),
            limit=value["limit"],
            offset=value["offset"],
            metadata=metadata_in(value),
        )
        return *await self._crons.search(query), query

    def assistant_id(self, assistant: str) -> str:
        """The id of the assistant a search names by its id or its graph. Raises Invalid."""
        if assistant in self._assistants.graphs:
            return system_assistant_id(assistant)
        try:
            return as_uuid(assistant, "assistant")
        except Invalid:
            raise Invalid("Invalid assistant ID: must be a UUID") from None

    async def change(
        self, cron_id: str, changes: Mapping[str, Any], payload: Mapping[str, Any], caller: Caller
    ) -> Cron:
        """Change the fields named in `changes`, and those of the `payload`. Raises Invalid, Missing, Forbidden or
        Rejected."""
        if not changes:
            raise Rejected("Request body cannot be empty")
        told = dict(payload)
        value: dict[str, Any] = {
            "cron_id": _uuid(cron_id),
            **{name: changes.get(name) for name in ("schedule", "end_time", "enabled", "on_run_completed")},
            "payload": told,
            "metadata": told.get("metadata") or {},
        }
        present, now = await self._find(caller, "update", value), self._now()
        said = {name: value[name] for name in ("schedule", "end_time", "enabled", "on_run_completed")}
        changes = {
            **changes,
            **{name: told for name, told in said.items() if name in changes or told is not None},
            "metadata": metadata_in(value),
        }
        payload = value["payload"]
        changed = _changed(present, changes, payload, now)
        if set(changes) - OF_THE_CRON:
            await self._calls.request(_body(changed), caller=_owner(present), thread_id=changed.thread_id)
        kept = await self._crons.change(present.cron_id, lambda cron: _changed(cron, changes, payload, now))
        if kept is None:
            raise Missing("Not Found")
        self._changed.set()
        return kept

    async def delete(self, cron_id: str, caller: Caller) -> None:
        """Raises Invalid, Missing or Forbidden."""
        await self._crons.delete((await self._find(caller, "delete", {"cron_id": _uuid(cron_id)})).cron_id)

    async def _find(self, caller: Caller, action: Literal["read", "update", "delete"], value: dict[str, Any]) -> Cron:
        """The cron that is meant, if the caller may do this with it. An auth handler may alter `value`."""
        cron_id = str(value["cron_id"])
        grant = await self._permission.ask(caller, "crons", action, value)
        cron = await self._crons.get(cron_id)
        if cron is None or not grant.holds(cron):
            raise Missing("Not Found")
        return cron

    async def tick(self) -> datetime | None:
        """Start what is due; when the next one is."""
        now = self._now()
        while taken := await self._crons.take(now, lambda cron: _advanced(cron, now), limit=PAGE):
            await asyncio.gather(*(self._start(cron, now) for cron in taken))
        return await self._crons.due()

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            try:
                due = await self.tick()
            except Exception:
                log.exception("crons_not_read")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), RETRY_SECONDS)
                continue
            await self._wait(due)

    async def _wait(self, due: datetime | None) -> None:
        """Until `due`, or until there may be something earlier."""
        while not self._changed.is_set():
            left = (due - self._now()).total_seconds() if due is not None else None
            if left is not None and left <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, CLOCK_SECONDS) if left is not None else None)

    async def _start(self, cron: Cron, now: datetime) -> None:
        """Start a run of a cron that was taken; nothing it does may keep another from running."""
        if cron.end_time is not None and cron.end_time <= now:
            return
        about = {"cron_id": cron.cron_id, "assistant_id": cron.assistant_id}
        try:
            request = await self._calls.request(_body(cron), caller=_owner(cron), thread_id=cron.thread_id, vet=False)
            call = dict(request.call or {})
            configurable = {**call["config"].get("configurable", {}), "cron_id": cron.cron_id}
            call["config"] = {**call["config"], "configurable": configurable}
            run = await self._runs.start(replace(request, call=call))
        except Missing as error:
            log.warning("cron_disabled", reason=error.message, **about)
            await self._crons.change(cron.cron_id, lambda kept: replace(kept, enabled=False, updated_at=now))
        except ThreadlineError as error:
            log.warning("cron_not_started", kind=error.kind, **about)
        except HTTPException as error:  # an auth handler's
            log.warning("cron_not_started", kind="refused", status=error.status_code, **about)
        except Exception:
            log.exception("cron_not_started", **about)
        else:
            log.info("cron_started", run_id=run.run_id, **about)


def _owner(cron: Cron) -> Caller:
    """Who made the cron: its runs are theirs, whoever has changed it since."""
    return Caller(cron.owner, user_of(cron.user or {}))


def _uuid(cron_id: str) -> UUID:
    try:
        return UUID(as_uuid(cron_id, "cron"))
    except Invalid:
        raise Invalid("Invalid cron ID: must be a UUID") from None


def _as_uuid(id: str | None) -> UUID | None:
    return UUID(id) if id is not None else None


def _as_text(id: UUID | str | None) -> str | None:
    return str(id) if id is not None else None


def _following(cron: Cron, now: datetime) -> datetime | None:
    """When the cron runs next after `now`; None once its end has come."""
    following = next_time(cron.schedule, cron.timezone, now)
    return following if cron.end_time is None or following < cron.end_time else None


def _advanced(cron: Cron, now: datetime) -> datetime | None:
    """When a cron that is kept runs next: one that makes no sense any more must not hold up the others."""
    try:
        return _following(cron, now)
    except Invalid as error:
        log.warning("cron_has_no_time", cron_id=cron.cron_id, reason=error.message)
        return None


def _changed(cron: Cron, changes: Mapping[str, Any], payload: Mapping[str, Any], now: datetime) -> Cron:
    fields: dict[str, Any] = {
        name: changes[name]
        for name in ("schedule", "timezone", "end_time", "enabled", "on_run_completed")
        if name in changes
    }
    changed = replace(
        cron,
        **fields,
        payload=_marked({**cron.payload, **payload}, cron.cron_id),
        metadata={**cron.metadata, **(changes.get("metadata") or {})},
        updated_at=now,
    )
    if fields.keys() - {"on_run_completed"}:
        changed = replace(changed, next_run_at=_following(changed, now))
    return changed


def _marked(payload: dict[str, Any], cron_id: str) -> dict[str, Any]:
    """The payload with the cron's id among what its runs are configured with."""
    config = payload.get("config") or {}
    return {**payload, "config": {**config, "configurable": {**(config.get("configurable") or {}), "cron_id": cron_id}}}


def _body(cron: Cron) -> RunBody:
    """The body of the cron's runs. The cron's id is left out: beside a context it would be refused."""
    config = cron.payload["config"]
    configurable = {name: value for name, value in config["configurable"].items() if name != "cron_id"}
    given = {name: value for name, value in cron.payload.items() if value is not None}
    return RunBody.model_validate(
        {
            **given,
            "config": {**config, "configurable": configurable},
            "metadata": cron.metadata,
            "on_completion": cron.on_run_completed,
        }
    )
