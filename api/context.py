"""What routes work with: the services, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from starlette.types import ASGIApp

from threadline.domain.headers import HeaderChoice
from threadline.domain.ports import Turns
from threadline.domain.records import Caller
from threadline.services.assistants import Assistants
from threadline.services.auth import Keys
from threadline.services.branches import Branches
from threadline.services.calls import Calls
from threadline.services.checkpoints import Checkpoints
from threadline.services.comparison import Comparison
from threadline.services.crons import Crons
from threadline.services.limits import RateLimit
from threadline.services.metrics import Metrics
from threadline.services.permission import Permission
from threadline.services.replay import Replay
from threadline.services.rerun import Reruns
from threadline.services.runs import Runs
from threadline.services.sessions import Sessions
from threadline.services.share import Share
from threadline.services.snapshots import Snapshots
from threadline.services.states import States
from threadline.services.store import Stores
from threadline.services.threads import Threads


@dataclass(frozen=True, slots=True)
class Surface:
    """What the project served changes about the HTTP side: `app` answers every path that is not ours, `cors` holds
    the parameters of CORSMiddleware, `disabled` names resources of the LangGraph Server API, below `prefix` everything
    is served too, and `headers` are those that graphs are told of."""

    app: ASGIApp | None = None
    cors: Mapping[str, Any] | None = None
    disabled: frozenset[str] = frozenset()
    prefix: str | None = None
    headers: HeaderChoice | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the routes may call, and the few values they need. Built by `threadline.app.wiring`.

    `checks` gives a name and a check for everything `/ready` looks at; a check raises what is wrong. Whoever stops the
    server cancels the `open_streams`.
    """

    runs: Runs
    threads: Threads
    assistants: Assistants
    calls: Calls
    crons: Crons
    sessions: Sessions
    snapshots: Snapshots
    checkpoints: Checkpoints
    states: States
    replay: Replay
    reruns: Reruns
    branches: Branches
    comparison: Comparison
    share: Share
    turns: Turns
    stores: Stores
    permission: Permission
    surface: Surface
    keys: Keys
    rate_limit: RateLimit | None
    metrics: Metrics
    checks: dict[str, Callable[[], Awaitable[None]]]
    info: dict[str, Any]
    tools: list[dict[str, Any]]
    heartbeat: float
    server_heartbeat: float
    max_message_chars: int
    open_streams: set[asyncio.Task[None]] = field(default_factory=set)


# Both wait for nothing, but FastAPI would call a plain function in a thread.


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # set by `api.gate`, which no request gets round
    return caller


Asking = Annotated[Caller, Depends(_caller)]
Using = Annotated[Context, Depends(_context)]
Limit = Annotated[int, Query(ge=1, le=500, description="How many items to list.")]


def page(items: list[Any], *, limit: int, cursor: Callable[[Any], Any]) -> dict[str, Any]:
    """A list's answer: at most `limit` items, and in `next` what to pass as `before` for more, or null.

    `items` must have been asked for with one more than `limit`.
    """
    shown = items[:limit]
    return {"items": shown, "next": cursor(shown[-1]) if len(items) > limit else None}
