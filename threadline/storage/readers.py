"""Reading the history: a few threads with a connection each, which no writer makes wait."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from threadline.domain.errors import Invalid, Unavailable
from threadline.storage.sqlite_file import OF_VALUES, open_for_reading, typed

T = TypeVar("T")
THREADS = 4


class Readers:
    """Runs questions beside the event loop, so that neither a slow disk nor a large state holds it up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="history-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """What the question finds, as it was at one moment. Unavailable if the file cannot be read, Invalid for an odd
        value."""
        if self._closed:
            raise Unavailable("The history is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)
        except (UnicodeError, OverflowError, *OF_VALUES) as error:
            raise Invalid("The history was asked for a value that it cannot hold.") from error
        except sqlite3.Error as error:
            raise typed(error) from error

    async def aclose(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = open_for_reading(self._path)
            self._connections.append(connection)
        connection.execute("BEGIN")
        try:
            return question(connection)
        finally:
            if connection.in_transaction:  # some faults have ended it
                connection.execute("ROLLBACK")
