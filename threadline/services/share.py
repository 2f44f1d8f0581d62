"""Sharing sessions: one as a file for others, and others' files as sessions of one's own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from threadline.domain import ports
from threadline.domain.errors import Missing
from threadline.domain.events import Event
from threadline.domain.records import Caller, Run, Thread
from threadline.domain.stored import Stored, StoredHead, Taken
from threadline.services import exporting, importing
from threadline.services.fingerprint import fingerprint
from threadline.services.graphs import Graphs
from threadline.services.sessionfile import BadFile, Bounds
from threadline.services.threads import Threads

log = structlog.get_logger(__name__)
T = TypeVar("T")

AT_ONCE = 2
"""Files that are written or read at the same time."""
BATCH = 2**20
"""Bytes, about, that are kept in one transaction."""
RATIO = 10
"""What a file may unpack to, as a multiple of how large it may be."""
HEADS = 20
"""Branches whose newest state is looked at before a file is taken."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a file. `served` says whether its graph is here, `changed` whether that is another than it was."""

    thread: Thread
    graph_id: str
    served: bool
    changed: bool
    runs: int
    turns: int
    checkpoints: int


class Share:
    """Writes and reads files of sessions, beside the event loop."""

    def __init__(
        self,
        *,
        exchange: ports.Exchange,
        threads: Threads,
        graphs: Graphs,
        secrets: Collection[str],
        folder: Path,
        most: int,
    ) -> None:
        """`secrets` are taken out of every file; `folder` is where files lie while they are made or read; `most` is how
        many bytes one may have that is brought."""
        self._exchange = exchange
        self._threads = threads
        self._graphs = graphs
        self._secrets = frozenset(secrets)
        self._folder = folder
        self._most = most
        self._bounds = Bounds(most * RATIO)
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def exported(self, thread: Thread, caller: Caller) -> AsyncIterator[BinaryIO]:
        """The thread as a file, whole and at its beginning. Raises Conflict while something runs on the thread."""
        origin = await self._origin(thread, caller)
        secrets = self._secrets | ({thread.owner} if len(thread.owner) > 8 else set())

        with tempfile.TemporaryFile(dir=self._folder) as file:

            def write(taken: Taken) -> bool:
                exporting.write(file, taken, origin, secrets=secrets)
                return True

            async with self._turns:
                if await self._exchange.take(thread.thread_id, write) is None:
                    raise Missing(f"There is no session {thread.thread_id}.")
            file.seek(0)
            yield file

    async def import_(self, caller: Caller, body: AsyncIterable[bytes]) -> Imported:
        """A new thread of the caller's from a file. Raises BadFile or Conflict; nothing is left of the file then."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            async for chunk in body:
                await asyncio.to_thread(file.write, chunk)
                if file.tell() > self._most:
                    raise BadFile(f"The file is larger than {self._most} bytes.")
            async with self._turns:
                return await self._imported(caller, file)

    async def _imported(self, caller: Caller, file: BinaryIO) -> Imported:
        plan = await asyncio.to_thread(importing.examine, _begun(file), self._bounds)
        await self._exchange.begin(plan.thread_id)
        try:
            thread = plan.thread_of(await self._threads.arriving(plan.thread_id, caller, metadata=plan.metadata))
            async for stored in _batches(importing.stored_in(_begun(file), self._bounds, plan), _size_of_stored):
                await self._exchange.keep_stored(plan.thread_id, stored)
            served, changed = await self._fit(plan, thread, caller)
            async for runs in _batches(importing.runs_in(_begun(file), self._bounds, plan), _size_of_run):
                await self._exchange.keep_runs(runs)
            await self._exchange.finish(
                thread, turns=plan.turn_rows(), pins=plan.pin_rows(), branches=plan.branch_rows()
            )
        except BaseException:
            await asyncio.shield(self._exchange.abandon(plan.thread_id))
            raise
        log.info("session_imported", thread_id=plan.thread_id, checkpoints=plan.checkpoints, runs=len(plan.runs))
        return Imported(thread, plan.graph_id, served, changed, len(plan.runs), len(plan.turns), plan.checkpoints)

    async def _fit(self, plan: importing.Plan, thread: Thread, caller: Caller) -> tuple[bool, bool]:
        """Whether the thread's graph is served here, and is another than the file's. Raises BadFile if it cannot read
        the states of the file."""
        try:
            opening = self._graphs.of_thread(thread, caller)
        except Missing:
            return False, False
        async with opening as graph:
            for checkpoint_id in list(plan.heads)[-HEADS:]:
                place = {"thread_id": thread.thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
                try:
                    await graph.aget_state({"configurable": place})
                except Exception as error:  # somebody's reducers, on somebody's data
                    log.info("import_refused", error=type(error).__name__)
                    raise BadFile(
                        f"The graph {plan.graph_id} here cannot read the state at checkpoint {checkpoint_id}."
                    ) from error
            here = fingerprint(graph)
        return True, plan.header.graph.fingerprint not in (None, here)

    async def _origin(self, thread: Thread, caller: Caller) -> exporting.Origin:
        graph_id = str(thread.metadata.get("graph_id", self._graphs.default))
        try:
            async with self._graphs.of_thread(thread, caller) as graph:
                return exporting.Origin(graph_id, fingerprint(graph))
        except Missing:
            return exporting.Origin(graph_id, None)
        except Exception:  # a graph that is broken now has made sessions that are not
            log.warning("graph_not_opened", graph_id=graph_id, exc_info=True)
            return exporting.Origin(graph_id, None)


def _begun(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


async def _batches(items: Iterator[T], size: Callable[[T], int]) -> AsyncIterator[list[T]]:
    """The items, as many together as one transaction takes; they are read beside the event loop."""

    def batch() -> list[T]:
        taken, held = list[T](), 0
        for item in items:
            taken.append(item)
            held += size(item)
            if held > BATCH:
                break
        return taken

    while found := await asyncio.to_thread(batch):
        yield found


def _size_of_stored(stored: Stored) -> int:
    return 500 + (0 if isinstance(stored, StoredHead) else len(stored.data))


def _size_of_run(run: tuple[Run, list[Event]]) -> int:
    return 200 * len(run[1]) + 1000
