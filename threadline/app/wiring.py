"""Builds everything from the settings, once, and closes it in reverse."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import structlog
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from pydantic import SecretStr
from redis.asyncio import Redis

from api.context import Context, Surface
from threadline import __version__
from threadline.app.graphs import name_of, open_graphs
from threadline.app.hooks import hook_policy
from threadline.app.kit import USER_AGENT, AgentKit, open_kit
from threadline.app.memory import open_stores
from threadline.app.project import Project, load_object, load_project
from threadline.app.settings import Settings
from threadline.app.trust import trusted
from threadline.domain import ports
from threadline.domain.egress import Egress
from threadline.domain.errors import Invalid, Unavailable
from threadline.domain.headers import HeaderChoice
from threadline.domain.records import Limits, system_assistant_id
from threadline.services.assistants import Assistants, SystemAssistant
from threadline.services.auth import LOCAL, Keys
from threadline.services.branches import Branches
from threadline.services.calls import Calls
from threadline.services.checkpoints import Checkpoints
from threadline.services.comparison import Comparison
from threadline.services.crons import Crons
from threadline.services.egress import Guard, guarded_client
from threadline.services.expiry import Expiry
from threadline.services.gates import Gates
from threadline.services.graphs import Graphs
from threadline.services.hook_policy import HookPolicy
from threadline.services.limits import RateLimit
from threadline.services.metrics import Metrics
from threadline.services.permission import Permission
from threadline.services.rebuild import Rebuild
from threadline.services.redaction import named_like_secrets
from threadline.services.replay import Replay
from threadline.services.rerun import Reruns
from threadline.services.retention import Retention, rebuilder
from threadline.services.runner import Runner
from threadline.services.runs import Runs
from threadline.services.sessions import Sessions
from threadline.services.share import Share
from threadline.services.snapshots import Snapshots
from threadline.services.states import States
from threadline.services.threads import Threads, Ttl
from threadline.services.webhooks import TIMEOUT, Webhooks
from threadline.storage.assistants import SqlAssistants
from threadline.storage.breaker import Breaker
from threadline.storage.checkpoints import open_saver
from threadline.storage.crons import SqlCrons
from threadline.storage.database import open_database
from threadline.storage.datadir import open_data_dir
from threadline.storage.deliveries import SqlDeliveries
from threadline.storage.embedded import available, check_redis, embedded_redis
from threadline.storage.event_log import TieredEventLog
from threadline.storage.logs import SqlOldLogs
from threadline.storage.memory_live import MemoryLiveLog, MemoryLiveSessions
from threadline.storage.records import SqlArchive, SqlMarks, SqlPins, SqlRuns, SqlThreads, SqlTurns
from threadline.storage.redis_live import RedisLiveLog, RedisLiveSessions, open_redis
from threadline.storage.transfer import SqlExchange

log = structlog.get_logger(__name__)

SERVER_API = "0.16.7"
"""The version of the LangGraph Server API that is spoken: LangGraph Studio turns away from one it thinks too old."""
SERVER_HEARTBEAT = 5.0
"""Seconds between heartbeats of the LangGraph Server API, at most: its clients are used to that many."""


@asynccontextmanager
async def open_services(settings: Settings, *, scratch: bool = False) -> AsyncIterator[Context]:
    """The whole service, ready for requests. One that is `scratch` serves this process alone, without a Redis and
    without the project's own auth.

    Raises Invalid, Conflict or Unavailable with words for who starts it.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(open_data_dir(settings.data_dir))
        project = await asyncio.to_thread(load_project, settings.config)
        redis = None if scratch else await _open_live(settings, stack)
        database = await stack.enter_async_context(open_database(folder / "history.db"))
        saver = await stack.enter_async_context(
            open_saver(
                history=f"sqlite:///{folder / 'checkpoints.db'}",
                live=redis,
                ttl=settings.session_ttl,
                allow=project.types(settings.allowed_types),
                records=folder / "history.db",
            )
        )
        kit = await stack.enter_async_context(open_kit(settings))

        rate_limit = _rate_limit(settings, redis)
        metrics = Metrics()
        runs, turns, thread_records = SqlRuns(database), SqlTurns(database), SqlThreads(database)
        live_sessions, live_log = _live(redis, ttl=settings.session_ttl)
        event_log = TieredEventLog(live=live_log, archive=SqlArchive(database))
        await stack.enter_async_context(event_log.copying())
        sessions = Sessions(live=live_sessions, threads=thread_records, turns=turns)
        permission = Permission(None if scratch else project.auth)
        if permission.authenticates and settings.api_keys:
            log.warning("api_keys_not_used", hint="The project's own auth says who asks.")
        surface = await _surface(project, stack)
        stores = await stack.enter_async_context(
            open_stores(project, settings, path=folder / "store.db", permission=permission)
        )
        opened = await open_graphs(project, saver, stores.of(LOCAL))
        graphs = Graphs(opened, default=project.default, stores=stores)
        lines, pins = saver.lines(folder / "history.db"), SqlPins(database)
        gates = Gates()
        checkpoints = Checkpoints(graphs=graphs, saver=saver, pins=pins, gates=gates)
        rebuild = Rebuild(graphs=graphs, lineage=saver)
        snapshots = Snapshots(graphs=graphs, log=event_log)
        webhooks = await asyncio.to_thread(
            _webhooks, settings, states=snapshots, deliveries=SqlDeliveries(database), policy=hook_policy(project)
        )
        await stack.enter_async_context(webhooks.open())
        runner = Runner(
            graphs=graphs,
            runs=runs,
            turns=turns,
            log=event_log,
            sessions=sessions,
            metrics=metrics,
            timeout=settings.run_timeout,
            saver=saver,
            threads=thread_records,
            webhooks=webhooks,
        )
        await stack.enter_async_context(runner.open())
        threads = Threads(thread_records, permission=permission, ttl=_thread_ttl(project))
        exchange = SqlExchange(database, saver)
        await exchange.sweep()
        share = Share(
            exchange=exchange,
            threads=threads,
            graphs=graphs,
            secrets=secrets_of(settings),
            folder=folder,
            most=settings.max_import_bytes,
        )
        states = States(
            graphs=graphs,
            saver=saver,
            lines=lines,
            threads=thread_records,
            runs=runs,
            turns=turns,
            permission=permission,
            gates=gates,
        )
        service = Runs(
            threads=threads,
            sessions=sessions,
            checkpoints=checkpoints,
            runs=runs,
            log=event_log,
            runner=runner,
            graph_id=project.default,
            assistant_id=system_assistant_id,
            permission=permission,
            forgotten=kit.workspaces.delete,
            busy=settings.busy_session,
            gates=gates,
        )
        branches = Branches(
            lines=lines,
            marks=SqlMarks(database),
            pins=pins,
            runs=runs,
            log=event_log,
            sessions=sessions,
            states=states,
            gate=gates.of,
        )
        comparison = Comparison(branches=branches, checkpoints=checkpoints, lines=lines, runs=runs, log=event_log)
        assistants = Assistants(
            SqlAssistants(database),
            graphs,
            threads=thread_records,
            permission=permission,
            shared=bool(settings.api_keys) or permission.authenticates,
        )
        await assistants.ensure(_system_assistants(project))
        recovered = await service.recover()
        if recovered:
            log.info("runs_taken_up", runs=recovered)

        reruns = Reruns(
            threads=threads,
            runs=service,
            states=states,
            records=runs,
            graphs=graphs,
            saver=saver,
            lines=lines,
            known_model=kit.models.known,
        )
        calls = Calls(assistants=assistants, webhooks=webhooks)
        crons = Crons(SqlCrons(database), calls=calls, runs=service, assistants=assistants, permission=permission)
        await stack.enter_async_context(crons.open())
        expiry = Expiry(threads=thread_records, runs=service, states=states, expiring=threads.expiring)
        await stack.enter_async_context(expiry.open())

        async def live_answers() -> None:
            if redis is not None and not await saver.check_live():
                raise Unavailable("Redis does not answer.")

        limits = Limits(settings.history_max_age, settings.history_max_checkpoints)
        pruner = saver.pruner(folder / "history.db", rebuild=rebuilder(opened, project.default), thrifty=True)
        retention = Retention(
            pruner,
            limits,
            metrics=metrics,
            every=settings.history_sweep,
            logs=SqlOldLogs(database),
            max_log_age=settings.history_max_log_age,
        )
        await stack.enter_async_context(retention.sweeping())

        metrics.live_up.set_function(lambda: float(saver.live_ok))
        yield Context(
            runs=service,
            threads=threads,
            assistants=assistants,
            calls=calls,
            crons=crons,
            sessions=sessions,
            snapshots=snapshots,
            checkpoints=checkpoints,
            states=states,
            replay=Replay(lineage=saver, threads=thread_records, runs=runs, log=event_log, rebuild=rebuild),
            reruns=reruns,
            branches=branches,
            comparison=comparison,
            share=share,
            turns=turns,
            stores=stores,
            permission=permission,
            surface=surface,
            keys=Keys(() if permission.authenticates else settings.api_keys),
            rate_limit=rate_limit,
            metrics=metrics,
            checks={"redis": live_answers, "history": database.ping},
            info=_info(settings, kit, project, embedded=redis is not None and settings.redis_url is None),
            tools=kit.tools,
            heartbeat=settings.heartbeat,
            server_heartbeat=min(settings.heartbeat, SERVER_HEARTBEAT),
            max_message_chars=settings.max_message_chars,
        )


def secrets_of(settings: Settings) -> set[str]:
    """What the service knows that is nobody else's business: its secret settings, passwords in them, and variables of
    the environment that are called like secrets."""
    found = [value for _, value in settings]
    listed = [each for value in found for each in (value if isinstance(value, tuple) else (value,))]
    secrets = {each.get_secret_value() for each in listed if isinstance(each, SecretStr)}
    passwords = {password for each in secrets if (password := urlsplit(each).password) is not None}
    return secrets | passwords | named_like_secrets(os.environ)


def _system_assistants(project: Project) -> list[SystemAssistant]:
    return [
        SystemAssistant(graph_id, name_of(graph_id, project.graphs.get(graph_id)), project.descriptions.get(graph_id))
        for graph_id in project.file.graphs
    ]


def _webhooks(settings: Settings, *, states: Snapshots, deliveries: ports.Deliveries, policy: HookPolicy) -> Webhooks:
    guard = Guard(Egress.parse(settings.webhook_hosts))
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret is not None else None
    http = guarded_client(guard, verify=trusted(), timeout=TIMEOUT, headers={"User-Agent": USER_AGENT})
    return Webhooks(http=http, guard=guard, states=states, deliveries=deliveries, policy=policy, secret=secret)


async def _open_live(settings: Settings, stack: AsyncExitStack) -> Redis | None:
    """The Redis of the settings or an embedded one; None where none can be had."""
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        await check_redis(url)
    elif available():
        url = await stack.enter_async_context(embedded_redis(settings.data_dir.expanduser().absolute()))
    else:
        log.warning("no_redis", hint="No embedded Redis fits this machine: live state stays in this process.")
        return None
    return await stack.enter_async_context(open_redis(url))


def _live(redis: Redis | None, *, ttl: int) -> tuple[ports.LiveSessions, ports.LiveLog]:
    if redis is None:
        return MemoryLiveSessions(ttl=ttl), MemoryLiveLog()
    breaker = Breaker("live sessions")
    return RedisLiveSessions(redis, ttl=ttl, breaker=breaker), RedisLiveLog(redis, ttl=ttl, breaker=breaker)


def _rate_limit(settings: Settings, redis: Redis | None) -> RateLimit | None:
    if settings.rate_limit is None:
        return None
    storage: Storage = MemoryStorage()
    if redis is not None:
        storage = RedisStorage(
            "async+redis://",
            wrap_exceptions=True,
            implementation="redispy",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # handed on as it is
        )
    return RateLimit(settings.rate_limit, storage)


def _thread_ttl(project: Project) -> Ttl | None:
    ttl = project.file.checkpointer.ttl if project.file.checkpointer else None
    return Ttl(ttl.default_ttl, ttl.strategy) if ttl is not None and ttl.default_ttl is not None else None


async def _surface(project: Project, stack: AsyncExitStack) -> Surface:
    """What the project changes about the HTTP side. Its own application is started, as a server would start it."""
    http = project.file.http
    app = None
    if http.app is not None:
        app = await asyncio.to_thread(load_object, "http.app", http.app, project.root)
        if not callable(app):
            raise Invalid(f"http.app: {http.app} is no ASGI application.")
        if router := getattr(app, "router", None):
            await stack.enter_async_context(router.lifespan_context(app))
    chosen = http.configurable_headers
    return Surface(
        app=app,
        cors=http.cors.model_dump() if http.cors else None,
        disabled=http.disabled,
        prefix=http.mount_prefix,
        headers=HeaderChoice(tuple(chosen.includes or ()), tuple(chosen.excludes or ())) if chosen else None,
    )


def _info(settings: Settings, kit: AgentKit, project: Project, *, embedded: bool) -> dict[str, Any]:
    broken = {"broken_graphs": {graph_id: one.place for graph_id, one in project.broken.items()}}
    live = "embedded" if embedded else "redis" if settings.redis_url else "process"
    return {
        "name": "threadline",
        "version": SERVER_API,
        "threadline_version": __version__,
        "langgraph_py_version": version("langgraph"),
        "flags": {
            "assistants": True,
            "crons": True,
            "langsmith": False,
            "langsmith_tracing_replicas": False,
            "langsmith_tracing_session_on_runs": False,
        },
        "host": {
            "kind": "self-hosted",
            "project_id": None,
            "host_revision_id": None,
            "revision_id": None,
            "tenant_id": None,
        },
        "python_version": platform.python_version(),
        "graphs": list(project.graphs),
        **(broken if project.broken else {}),
        "model": {"provider": kit.models.provider, "names": list(kit.models.names)},
        "live": live,
        "session_ttl": settings.session_ttl,
    }
