"""`threadline prune`: takes from the histories here what limits do not leave, whether the service runs or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from langgraph.store.memory import InMemoryStore

from threadline.app.graphs import open_graphs
from threadline.app.project import Project, load_project
from threadline.app.settings import Settings
from threadline.app.tables import human, rows
from threadline.domain import ports
from threadline.domain.errors import Missing, ThreadlineError, Unavailable
from threadline.domain.records import Limits, Pruned, PrunedLogs
from threadline.services.retention import rebuilder
from threadline.services.store import scoped
from threadline.storage.allowlist import Name, names_of
from threadline.storage.database import open_database
from threadline.storage.history import History, open_history
from threadline.storage.logs import SqlOldLogs
from threadline.storage.pruner import Rebuild

PAGE = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What went of each thread, or would, and what there is to say of the others; `logs` if they were asked for."""

    pruned: list[Pruned]
    notes: list[str]
    logs: PrunedLogs | None = None


async def prune(
    settings: Settings, limits: Limits, *, max_log_age: timedelta | None, thread_id: str | None, dry_run: bool
) -> Outcome:
    """Prune one thread or all. Raises Missing if there is no history or no such thread."""
    folder, now = settings.data_dir.expanduser().absolute(), datetime.now(UTC)
    if not (folder / "checkpoints.db").exists():
        raise Missing(f"There are no checkpoints in {folder}.")
    outcome = Outcome([], [])
    if limits:
        outcome = await _checkpoints(settings, limits, folder, now, thread_id=thread_id, dry_run=dry_run)
    if max_log_age is None:
        return outcome
    async with open_database(folder / "history.db", migrate=False) as database:
        logs = SqlOldLogs(database)
        gone = await (logs.look if dry_run else logs.prune)(now - max_log_age, thread_id=thread_id)
    return replace(outcome, logs=gone)


async def _checkpoints(
    settings: Settings, limits: Limits, folder: Path, now: datetime, *, thread_id: str | None, dry_run: bool
) -> Outcome:
    pruned, left, notes = list[Pruned](), list[str](), list[str]()
    project, allowed = None, frozenset[Name]()
    try:
        project = await asyncio.to_thread(load_project, settings.config)
        allowed = names_of(project.types(settings.allowed_types))
    except ThreadlineError as error:
        notes.append(f"Conversations keep what they are rebuilt from: no graph could be loaded. {error.message}")
    url = f"sqlite:///{folder / 'checkpoints.db'}"
    async with open_history(url, allowed=allowed, read_only=dry_run) as history:
        pruner = history.pruner(folder / "history.db", rebuild=await _rebuild(project, history))
        async for one in _threads(pruner, limits, now, thread_id):
            try:
                done = await (pruner.look if dry_run else pruner.prune)(one, limits, now=now)
            except Unavailable as error:
                if thread_id is not None:
                    raise
                notes.append(f"{one} stays as it is. {error.message}")
                continue
            if done is None:
                left.append(one)
            elif done.checkpoints:
                pruned.append(done)
            elif thread_id is not None and not done.left:
                raise Missing(f"There is no session {thread_id}.")
        if pruned and not dry_run:
            await pruner.settle()
    if left:
        notes.append(f"In use, so left for another time: {', '.join(left)}.")
    return Outcome(pruned, notes)


async def _rebuild(project: Project | None, history: History) -> Rebuild | None:
    if project is None:
        return None
    # A look at a state runs no node, so no node misses the items of the real store.
    graphs = await open_graphs(project, history, scoped(InMemoryStore(), "prune"))
    return rebuilder(graphs, project.default)


async def _threads(pruner: ports.Pruner, limits: Limits, now: datetime, thread_id: str | None) -> AsyncIterator[str]:
    if thread_id is not None:
        yield thread_id
        return
    page, after = [("", 0)] * PAGE, ""
    while len(page) == PAGE:
        page = await pruner.crowded(limits, now=now, after=after, count=PAGE)
        for found, _ in page:
            yield found
            after = found


def lines(outcome: Outcome, limits: Limits, *, dry_run: bool) -> Iterator[str]:
    """The table, and in a sentence what it adds up to."""
    went = "would go" if dry_run else "went"
    if outcome.pruned:
        yield from rows(list(_table(outcome.pruned)))
        yield ""
    checkpoints = sum(done.checkpoints for done in outcome.pruned)
    size = sum(done.size for done in outcome.pruned)
    of = f"{_counted(checkpoints, 'checkpoint')} of {_counted(len(outcome.pruned), 'session')}"
    if limits:
        yield f"{of} {went}, {human(size)}."
    if outcome.logs is not None:
        yield f"{_counted(outcome.logs.runs, 'recording')} {went}, {human(outcome.logs.size)}."
    yield from outcome.notes


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(pruned: list[Pruned]) -> Iterator[tuple[str, str, str, str]]:
    yield "SESSION", "CHECKPOINTS", "KEPT", "SIZE"
    for done in pruned:
        yield done.thread_id, str(done.checkpoints), str(done.left), human(done.size)
