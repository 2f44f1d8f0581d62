"""The data directory: private to its owner, and used by one process at a time."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from threadline.domain.errors import Conflict, Unavailable

LOCK_FILE = "lock"
RESTORING = "restoring"
"""Stands in the folder while a restore exchanges its files."""
MARKS = (LOCK_FILE, "history.db", "checkpoints.db")
"""Any of these in a folder says that it is a data directory."""


class DataDirInUse(Conflict):
    """Another process holds the directory; `pid` is None where it cannot be told."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"The data directory {path} is in use by {who}. Stop that one, or choose another directory.")
        self.pid = pid


class DataDirUnusable(Unavailable):
    """The directory cannot be made or written, or is not private."""

    retryable = False


@contextlib.contextmanager
def open_data_dir(path: Path, *, restoring: bool = False) -> Iterator[Path]:
    """The directory's absolute path, made if need be, mode 0700, locked until the context ends or the process dies.

    Only who is `restoring` may have one whose files a restore has not exchanged to the end.
    Raises DataDirInUse or DataDirUnusable. These are told to whoever starts the service, so they name the path.
    """
    folder = _private_folder(path.expanduser().absolute())
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DataDirUnusable(f"The data directory {folder} cannot be written: {error.strerror}.") from error
    try:
        if not _try_lock(descriptor):
            raise DataDirInUse(folder, _read_pid(descriptor))
        _write_pid(descriptor)
        if (folder / RESTORING).exists() and not restoring:
            raise DataDirUnusable(f"A restore of the data directory {folder} was broken off. Do it again.")
        yield folder
    finally:
        os.close(descriptor)


def _private_folder(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder = folder.resolve()
        _refuse_other_files(folder)
        if sys.platform != "win32":
            _make_private(folder)
    except FileExistsError as error:
        raise DataDirUnusable(f"The data directory {folder} cannot be made: {error.filename} is a file.") from error
    except OSError as error:
        raise DataDirUnusable(f"The data directory {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise DataDirUnusable(
            f"The data directory {folder} cannot be written by this user. Give it to them, or choose another directory."
        )
    return folder


def _refuse_other_files(folder: Path) -> None:
    """A folder with files in it that is no data directory of an earlier start is somebody's, and left as it is."""
    if any(folder.iterdir()) and not any((folder / name).exists() for name in MARKS):
        raise DataDirUnusable(f"{folder} holds other files. Choose a new or an empty folder as the data directory.")


def _make_private(folder: Path) -> None:
    """Close an own folder to others. Somebody else's may be shared with a group, as volumes are, but not with all."""
    status = folder.stat()
    if status.st_uid == os.geteuid():
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    elif status.st_mode & stat.S_IWOTH:
        raise DataDirUnusable(
            f"The data directory {folder} belongs to somebody else and everybody may write to it. "
            "Choose another directory, such as a new one inside it."
        )


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 20  # far behind the pid: a locked byte cannot be read by others

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _read_pid(descriptor: int) -> int | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, f"{os.getpid()}\n".encode())
