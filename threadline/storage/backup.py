"""A backup: both databases of a data directory as they were at one moment, in one file with what it takes to trust it.

The file is a ZIP archive of exactly `manifest.json`, `history.db` and `checkpoints.db`, stored and not compressed, so
that it can never unpack to more than it is. The manifest is
`{format, threadline, created_at, schema: {name: version}, files: {name: {size, sha256}}}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from threadline import __version__
from threadline.domain.errors import Conflict, Invalid, Missing, Unavailable
from threadline.storage.database import revisions
from threadline.storage.datadir import RESTORING
from threadline.storage.sqlite_file import check_schema, typed

FORMAT = 1
MANIFEST = "manifest.json"
DATABASES = ("history.db", "checkpoints.db")
MANIFEST_BYTES = 64 * 2**10
"""A manifest is far smaller; more is not read."""
CHUNK = 2**20
PAGES = 4096
"""Pages copied at once."""
_DAMAGES = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError),
    *(struct.error, ValueError, OverflowError, OSError),
)
"""What the reader of archives raises about those that were cut off or made up."""
PATIENCE = 10.0
"""Seconds that a moment without a writer is waited for."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself, checked. `sizes` is in bytes."""

    created_at: str
    version: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]


class BadBackup(Invalid):
    """The file is no backup, or is damaged. The message is for whoever named the file."""


def write_backup(data_dir: Path, target: Path, *, replace: bool) -> Backup:
    """Copy the data directory's databases into `target`, also while the service runs. Blocks.

    Both are read as they were at one moment, at which nobody could write to the history database. A row of
    `chat_history` is written after the checkpoint it names and retention spares each thread's newest, so none in the
    copy names a newest checkpoint that the other copy lacks.

    Raises Missing (nothing to back up), Conflict (`target` exists and may not be replaced), Invalid, Unavailable.
    """
    present = [name for name in DATABASES if (data_dir / name).exists()]
    if len(present) < len(DATABASES):
        raise Missing(f"{data_dir} holds no history to back up.")
    if target.is_dir():
        raise Invalid(f"{target} is a folder.")
    if target.exists() and not replace:
        raise Conflict(f"{target} is there already. Say --force to replace it.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            work = Path(name)
            _copy(data_dir, work)
            backup = _pack(work, work / "backup")
            _publish(work / "backup", target, replace=replace)
    except FileExistsError as error:
        raise Conflict(f"{target} is there already. Say --force to replace it.") from error
    except OSError as error:
        raise Unavailable(f"{target} cannot be written: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise typed(error) from error
    return backup


def _copy(data_dir: Path, work: Path) -> None:
    with ExitStack() as stack:
        lock, history, checkpoints = (
            stack.enter_context(closing(sqlite3.connect(data_dir / name, timeout=PATIENCE, isolation_level=None)))
            for name in (DATABASES[0], *DATABASES)
        )
        lock.execute("BEGIN IMMEDIATE")
        for source in (history, checkpoints):
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it sees this moment alone
        lock.execute("ROLLBACK")
        for name, source in zip(DATABASES, (history, checkpoints), strict=True):
            (work / name).touch(0o600)
            with closing(sqlite3.connect(work / name, isolation_level=None)) as copy:
                source.backup(copy, pages=PAGES, sleep=0)
                copy.execute("PRAGMA journal_mode=DELETE")  # a file that stands alone
            _check_database(work / name, name)


def _pack(work: Path, target: Path) -> Backup:
    files = {name: {"size": (work / name).stat().st_size, "sha256": _digest(work / name)} for name in DATABASES}
    manifest = {
        "format": FORMAT,
        "threadline": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "schema": {name: _schema_of(work / name) for name in DATABASES},
        "files": files,
    }
    with target.open("xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
            for name in DATABASES:
                archive.write(work / name, name)
        file.flush()
        os.fsync(file.fileno())
    target.chmod(0o600)
    return _backup_of(manifest)


def _publish(made: Path, target: Path, *, replace: bool) -> None:
    if replace:
        made.replace(target)
    else:
        try:
            os.link(made, target)  # unlike a rename it fails if somebody put a file there meanwhile
        except FileExistsError:
            raise
        except OSError:  # this file system has no links
            made.rename(target)
    _sync(target.parent)


# Reading one


@contextlib.contextmanager
def open_backup(path: Path) -> Iterator[Archive]:
    """A backup all of whose bytes are what its manifest says. Blocks; reads it once, writes nothing.

    Raises Missing, BadBackup, Conflict (a newer version made it) or Unavailable (it cannot be read).
    """
    if not path.exists():
        raise Missing(f"There is no file {path}.")
    if not path.is_file():
        raise BadBackup(f"{path} is no file, so no backup of Threadline.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        try:
            archive = _checked(file, path)
        except _DAMAGES as error:
            raise BadBackup(f"{path} is no backup of Threadline, or a part of it is missing.") from error
        yield archive


@dataclass(frozen=True, slots=True)
class Archive:
    """An open backup."""

    backup: Backup
    archive: zipfile.ZipFile

    def unpack(self, folder: Path) -> None:
        """Write its databases into an empty folder and look whether they are sound. Raises as `open_backup` does."""
        needed, free = sum(self.backup.sizes.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise Unavailable(f"The backup needs {needed} bytes, and {free} are free.")
        for name in DATABASES:
            with self.archive.open(name) as source, (folder / name).open("xb") as target:
                (folder / name).chmod(0o600)
                shutil.copyfileobj(source, target, CHUNK)
                target.flush()
                os.fsync(target.fileno())
            _check_database(folder / name, name)


def holds_data(folder: Path) -> bool:
    return any((folder / name).exists() for name in DATABASES)


def put_in_place(work: Path, folder: Path) -> Path | None:
    """Make unpacked databases those of a data directory, which the caller holds and nobody uses.

    What was there, live state included, is kept in a folder of its own: its path, or None if there was nothing.
    Should it be broken off, the directory is refused until a restore was done.
    """
    aside = None
    (folder / RESTORING).touch(0o600)
    _sync(folder)
    _fold(folder)
    files = [folder / f"{name}{suffix}" for name in DATABASES for suffix in ("", "-wal", "-shm")]
    old = [path for path in (*files, folder / "redis") if path.exists()]
    if old:
        aside = _aside(folder)
        for path in old:
            path.rename(aside / path.name)
        _sync(aside)
    for name in DATABASES:
        (work / name).rename(folder / name)
    _sync(folder)
    (folder / RESTORING).unlink()
    _sync(folder)
    return aside


def _fold(folder: Path) -> None:
    """Write what stands in the logs of databases into their files. One that is damaged stays as it is."""
    for name in DATABASES:
        if (folder / name).exists():
            with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(folder / name)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _aside(folder: Path) -> Path:
    stem, number = f"before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}", 1
    aside = folder / stem
    while aside.exists():
        number += 1
        aside = folder / f"{stem}-{number}"
    aside.mkdir(mode=0o700)
    return aside


def _checked(file: BinaryIO, path: Path) -> Archive:
    size = os.fstat(file.fileno()).st_size
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    if sorted(member.filename for member in members) != sorted((MANIFEST, *DATABASES)):
        raise BadBackup(f"{path} is no backup of Threadline: it holds other files.")
    for member in members:
        mode = member.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise BadBackup(f"{path} is no backup of Threadline: {member.filename} is no plain file.")
        packed = member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1
        if packed or member.compress_size != member.file_size or member.file_size > size:
            raise BadBackup(f"{path} is no backup of Threadline: its files are packed.")
    backup = _backup_of(_manifest(archive, path))
    if sum(backup.sizes.values()) > size:
        raise BadBackup(f"{path} is damaged: its files are larger than it is.")
    for name in DATABASES:
        _check_member(archive, name, backup, path)
    return Archive(backup, archive)


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if archive.getinfo(MANIFEST).file_size > MANIFEST_BYTES:
        raise BadBackup(f"{path} is no backup of Threadline: its manifest is too large.")
    try:
        manifest = json.loads(archive.read(MANIFEST))
        if not isinstance(manifest, dict):
            raise TypeError
        if int(manifest["format"]) < 1:
            raise ValueError
        if int(manifest["format"]) > FORMAT:
            raise Conflict(f"{path} was made by a newer version of Threadline. Restore it with that version.")
        _backup_of(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadBackup(f"{path} is no backup of Threadline: its manifest cannot be read.") from error
    return manifest


def _backup_of(manifest: Mapping[str, Any]) -> Backup:
    files = manifest["files"]
    return Backup(
        created_at=str(manifest["created_at"]),
        version=str(manifest["threadline"]),
        sizes={name: int(files[name]["size"]) for name in DATABASES},
        digests={name: str(files[name]["sha256"]) for name in DATABASES},
    )


def _check_member(archive: zipfile.ZipFile, name: str, backup: Backup, path: Path) -> None:
    if archive.getinfo(name).file_size != backup.sizes[name]:
        raise BadBackup(f"{path} is damaged: {name} has another size than its manifest says.")
    digest = hashlib.sha256()
    with archive.open(name) as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != backup.digests[name]:
        raise BadBackup(f"{path} is damaged: {name} is not what was backed up.")


def _check_database(file: Path, name: str) -> None:
    """Raise BadBackup unless it is a whole database of ours, Conflict if a newer version wrote it."""
    try:
        with closing(_read_only(file)) as connection:
            foreign = connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'"
            ).fetchone()
            if foreign is not None:
                raise BadBackup(f"{name} holds what no database of Threadline does.")
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise BadBackup(f"{name} is damaged.")
            if name == "checkpoints.db":
                check_schema(connection)
                return
        revision = _schema_of(file)
    except sqlite3.DatabaseError as error:
        raise BadBackup(f"{name} is damaged, or no database of Threadline.") from error
    if not revision:
        raise BadBackup(f"{name} is no database of Threadline.")
    if revision not in revisions():
        raise Conflict(f"{name} was written by a newer version of Threadline. Use that version.")


def _schema_of(file: Path) -> str:
    """The revision of the history database; the checkpoints' schema has none and counts as 0."""
    with closing(_read_only(file)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return str(connection.execute("PRAGMA user_version").fetchone()[0]) if file.name != DATABASES[0] else ""
        return str((connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",))[0])


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename in a folder outlive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
