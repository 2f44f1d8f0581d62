"""`threadline export` and `threadline import`: a session as a file, and back."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from threadline.app.client import Client
from threadline.app.transcript import clean
from threadline.domain.errors import Conflict, Invalid, Missing, Unavailable


def export(client: Client, session: str, target: Path | None) -> None:
    """Write the session's file, or send it where the output goes. A file is there whole or not at all.

    Raises Invalid where that is a terminal, Conflict where the file is there already, Unavailable if it cannot be
    written, and what the client raises.
    """
    if target is None:
        if sys.stdout.isatty():
            raise Invalid("This is a file for machines: say where it goes, with `> FILE` or --output FILE.")
        client.download(f"/sessions/{session}/export", sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with _written(target) as out:
        client.download(f"/sessions/{session}/export", out)


def bring(client: Client, source: str) -> Iterator[str]:
    """Import a file, or what comes by the input (`-`); what there is to say of it."""
    with _opened(source) as file:
        made: dict[str, Any] = client.upload("/sessions/import", file)
    counts = ", ".join(_counted(made[noun], noun[:-1]) for noun in ("turns", "runs", "checkpoints"))
    yield f"Imported as session {made['session_id']}: {counts}."
    if made["note"]:
        yield clean(made["note"])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    if target.exists():
        raise Conflict(f"{target} is there already.")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
        Path(name).replace(target)
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below
    except FileNotFoundError as error:
        raise Missing(f"There is no file {source}.") from error
    except OSError as error:
        raise Unavailable(f"{source} cannot be read: {error.strerror}.") from error
    with file:
        yield file
