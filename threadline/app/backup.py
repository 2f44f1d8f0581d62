"""`threadline backup` and `threadline restore`: everything that is kept for good, in one file and back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from threadline.app.settings import Settings
from threadline.domain.errors import Conflict, Unavailable
from threadline.storage import backup as files
from threadline.storage.backup import Backup
from threadline.storage.datadir import RESTORING, open_data_dir
from threadline.storage.embedded import end_orphans
from threadline.storage.live_state import forget_live

PREFIX = ".restore-"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and where the files are that were there before."""

    backup: Backup
    aside: Path | None


def back_up(settings: Settings, target: Path, *, replace: bool) -> Backup:
    """Write a backup of the data directory, also while the service runs. Raises as `write_backup` does."""
    return files.write_backup(_data_dir(settings), target.expanduser().absolute(), replace=replace)


def restore(settings: Settings, source: Path, *, replace: bool) -> Restored:
    """Make the data directory what it was. Raises Conflict if the service runs or if there is data to be replaced,
    Missing, Invalid or Unavailable; the directory is then as it was."""
    folder = _data_dir(settings)
    with ExitStack() as stack:
        archive = stack.enter_context(files.open_backup(source.expanduser()))
        if folder.exists():
            folder = stack.enter_context(open_data_dir(folder, restoring=True))
            if files.holds_data(folder) and not replace and not (folder / RESTORING).exists():
                raise Conflict(f"{folder} holds data. Say --force to restore over it; it is then kept aside.")
        with _work_folder(folder) as work:
            archive.unpack(work)
            if not folder.exists():
                folder = stack.enter_context(open_data_dir(folder, restoring=True))
            asyncio.run(_forget_live(settings, folder, work))
            try:
                aside = files.put_in_place(work, folder)
            except OSError as error:
                raise Unavailable(f"{folder} cannot be written: {error.strerror}. Restore again.") from error
        return Restored(archive.backup, aside)


def _data_dir(settings: Settings) -> Path:
    return settings.data_dir.expanduser().absolute()


@contextlib.contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk."""
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    for left in folder.glob(f"{PREFIX}*"):  # by a restore that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as name:
            yield Path(name)
    except OSError as error:
        raise Unavailable(f"{place} cannot be written: {error.strerror}.") from error


async def _forget_live(settings: Settings, folder: Path, work: Path) -> None:
    """End a Redis that a killed service left here; drop what a Redis of the user's own knows of these threads.

    What it holds is newer than the backup. Checkpoints would not be believed, session documents would.
    """
    await end_orphans(folder / "redis")
    if settings.redis_url is not None:
        await forget_live(settings.redis_url.get_secret_value(), (folder, work))
