"""Workspaces: a folder of files for each session, confined and bounded."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import UUID

from threadline.domain.errors import Invalid, Missing

MAX_DEPTH = 8
MAX_NAME = 200
"""Bytes of one part of a path."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one workspace may hold: bytes in all, bytes of one file, files."""

    total: int = 50_000_000
    file: int = 5_000_000
    files: int = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, by its path in the workspace; `size` in bytes."""

    path: str
    size: int


class Workspace:
    """One session's files. Its calls block: run them in a thread.

    Every path is walked part by part from the folder's own descriptor, and no link is followed on the way, so that
    what changes meanwhile cannot lead out of it.
    """

    def __init__(self, folder: Path, *, quota: Quota) -> None:
        self._folder = folder
        self._quota = quota

    @property
    def folder(self) -> Path | None:
        """Where the files are; None as long as there are none."""
        return self._folder if self._folder.is_dir() else None

    def list(self, under: str = "") -> list[Entry]:
        """All files, or those below a folder, by path. Raises Invalid."""
        prefix = "/".join(_parts(under)) if under.strip("/") else ""
        return [entry for entry in self._walk() if not prefix or f"{entry.path}/".startswith(f"{prefix}/")]

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises Invalid or Missing."""
        *folders, name = _parts(path)
        with self._descend(folders, path) as parent:
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent.fd)
            except (FileNotFoundError, NotADirectoryError):
                raise Missing(f"There is no file {path}.") from None
            except OSError:
                raise Invalid(f"{path} is no plain file.") from None
            with os.fdopen(file, "rb") as opened:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise Invalid(f"{path} is no plain file.")
                content = opened.read(self._quota.file + 1)
        if len(content) > self._quota.file:
            raise Invalid(f"{path} is larger than {self._quota.file} bytes.")
        return content

    def write(self, path: str, content: bytes) -> Entry:
        """Write a whole file, making its folders; an old one of that name is replaced in one step. Raises Invalid."""
        *folders, name = _parts(path)
        if len(content) > self._quota.file:
            raise Invalid(f"A file may have {self._quota.file} bytes; this has {len(content)}.")
        entries = {entry.path: entry.size for entry in self._walk()}
        kept = "/".join([*folders, name])
        entries[kept] = len(content)
        if len(entries) > self._quota.files:
            raise Invalid(f"A workspace may hold {self._quota.files} files.")
        if sum(entries.values()) > self._quota.total:
            raise Invalid(f"A workspace may hold {self._quota.total} bytes in all.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._descend(folders, path, make=True) as parent:
            draft = f".{os.getpid()}.{os.urandom(6).hex()}.draft"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(draft, flags, 0o600, dir_fd=parent.fd), "wb") as opened:
                    opened.write(content)
                os.replace(draft, name, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
            except OSError as error:
                _remove(draft, parent.fd)
                raise Invalid(f"{path} cannot be written: {error.strerror}.") from None
        return Entry(kept, len(content))

    def delete(self, path: str) -> None:
        """Delete a file. Raises Invalid or Missing."""
        *folders, name = _parts(path)
        with self._descend(folders, path) as parent:
            try:
                os.unlink(name, dir_fd=parent.fd)
            except (FileNotFoundError, NotADirectoryError):
                raise Missing(f"There is no file {path}.") from None
            except OSError:
                raise Invalid(f"{path} is no plain file.") from None

    def _walk(self) -> Iterator[Entry]:
        """Every plain file; links and devices are none."""
        if not self._folder.is_dir():
            return
        for parent, folders, files in os.walk(self._folder, followlinks=False):
            folders.sort()
            for name in sorted(files):
                path = Path(parent, name)
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and not _is_draft(name):
                    yield Entry(path.relative_to(self._folder).as_posix(), found.st_size)

    def _descend(self, folders: Sequence[str], path: str, *, make: bool = False) -> _Folder:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._folder, flags)
        except OSError:
            raise Missing(f"There is no file {path}.") from None
        for part in folders:
            try:
                if make:
                    _make(part, fd)
                inner = os.open(part, flags, dir_fd=fd)
            except FileNotFoundError:
                raise Missing(f"There is no file {path}.") from None
            except OSError:
                raise Invalid(f"{path}: {part} is no folder.") from None
            finally:
                os.close(fd)
            fd = inner
        return _Folder(fd)


class Workspaces:
    """The workspaces of all sessions."""

    def __init__(self, folder: Path, *, quota: Quota) -> None:
        self._folder = folder
        self._quota = quota

    def of(self, session_id: str) -> Workspace:
        """A session's workspace; nothing is made before something is written. Raises Invalid (no UUID)."""
        try:
            name = str(UUID(session_id))
        except ValueError:
            raise Invalid("There is no session, so there are no files.") from None
        return Workspace(self._folder / name, quota=self._quota)

    def delete(self, session_id: str) -> None:
        """Delete a session's files, if it has any."""
        shutil.rmtree(self._folder / str(UUID(session_id)), ignore_errors=True)


class _Folder:
    """An open folder, closed at the end of a `with`."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _parts(path: str) -> list[str]:
    """The parts of a path within a workspace. Raises Invalid for one that leads out of it or nowhere."""
    if not path.strip() or any(ord(character) < 32 or ord(character) == 127 for character in path) or "\\" in path:
        raise Invalid("A path is made of names and slashes, such as notes/today.md.")
    parts = [part for part in PurePosixPath(path).parts if part != "."]
    if not parts or parts[0].startswith("/") or ".." in parts:
        raise Invalid(f"{path} leads out of the workspace.")
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME for part in parts):
        raise Invalid("A path may have 8 parts of 200 bytes.")
    if any(map(_is_draft, parts)):
        raise Invalid(f"{path} is a name that is kept for the service.")
    return parts


def _is_draft(name: str) -> bool:
    """Whether it is a file that is still being written, or was when the service was killed."""
    return name.startswith(".") and name.endswith(".draft")


def _make(name: str, fd: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
    except FileExistsError:
        return


def _remove(name: str, fd: int) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except OSError:
        return
