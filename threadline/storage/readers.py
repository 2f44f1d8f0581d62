"""Reading the history: a few threads with a connection each, which no writer makes wait."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from threadline.domain.errors import Invalid, Unavailable
from threadline.storage.sqlite_file import OF_VALUES, open_for_reading, typed

T = TypeVar("T")
THREADS = 4
TOGETHER = 64
"""Questions that one thread answers one after the other, at most."""
PATIENCE = 0.005
"""Seconds after which those who have their answer are told without waiting for the others'."""


@dataclass(slots=True, eq=False)
class Question:
    """What is asked, and who waits for it."""

    text: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = None


class Readers:
    """Answers questions beside the event loop, so that neither a slow disk nor a large state holds it up.

    What is asked in one round of the loop is handed over and answered together: each time a thread is woken, it waits
    for the interpreter's lock, longer than a small question takes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._asked: list[Question] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="history-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def ask(self, question: Callable[[sqlite3.Connection], T], *, long: bool = False) -> T:
        """What the question finds, as it was at one moment. Unavailable if the file cannot be read, Invalid for an odd
        value. A `long` question is answered by itself, so that no other has to wait for it."""
        if self._closed:
            raise Unavailable("The history is closed.")
        asked = Question(question, self._loop.create_future())
        if long:
            self._threads.submit(self._answer, [asked])
        else:
            self._asked.append(asked)
            if len(self._asked) == 1:
                self._loop.call_soon(self._hand_over)
        try:
            answer: T = await asked.done
        except (UnicodeError, OverflowError, *OF_VALUES) as error:
            raise Invalid("The history was asked for a value that it cannot hold.") from error
        except sqlite3.Error as error:
            raise typed(error) from error
        return answer

    async def aclose(self) -> None:
        self._closed = True
        self._hand_over()
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _hand_over(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), TOGETHER):
            self._threads.submit(self._answer, asked[start : start + TOGETHER])

    def _tell(self, answered: Sequence[Question]) -> None:
        """Tell everybody who waits, in the loop."""
        for each in answered:
            if each.done.done():
                continue  # cancelled
            if each.error is None:
                each.done.set_result(each.answer)
            else:
                each.done.set_exception(each.error)

    # From here on everything runs in a reader's thread.

    def _answer(self, asked: Sequence[Question]) -> None:
        answered: list[Question] = []
        began = time.monotonic()
        for each in asked:
            try:
                each.answer = _at_one_moment(each.text, self._connection())
            except Exception as error:  # any fault belongs to whoever asked, not to this thread
                each.error = error
            answered.append(each)
            if each is asked[-1] or time.monotonic() - began > PATIENCE:
                with suppress(RuntimeError):  # the loop was closed, nobody waits any more
                    self._loop.call_soon_threadsafe(self._tell, answered)
                answered, began = [], time.monotonic()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = open_for_reading(self._path)
            self._connections.append(connection)
        return connection


def _at_one_moment(question: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN")
    try:
        return question(connection)
    finally:
        if connection.in_transaction:  # some faults have ended it
            connection.execute("ROLLBACK")
