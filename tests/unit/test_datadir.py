"""The data directory: made private, held by one process, refused in plain words."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from threadline.storage.datadir import DataDirInUse, DataDirUnusable, open_data_dir

NOBODY = 65534

HOLD = """
import sys
from pathlib import Path
from threadline.storage.datadir import open_data_dir
with open_data_dir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_with_its_parents_and_private(tmp_path: Path) -> None:
    with open_data_dir(tmp_path / "a" / "b c") as folder:
        assert folder == (tmp_path / "a" / "b c").resolve()
        assert mode(folder) == 0o700
        assert mode(folder / "lock") == 0o600


def test_an_own_folder_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with open_data_dir(tmp_path):
        assert mode(tmp_path) == 0o700


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    tmp_path.chmod(0o755)

    with pytest.raises(DataDirUnusable, match="other files"), open_data_dir(tmp_path):
        pass

    assert mode(tmp_path) == 0o755
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_data_dir(Path("state")) as folder:
        assert folder.is_absolute()


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DataDirInUse, match=f"in use by process {holder.pid}") as refused, open_data_dir(tmp_path):
        pass
    assert refused.value.pid == holder.pid

    holder.kill()
    holder.wait()
    with open_data_dir(tmp_path):  # the system let go of the lock of the killed process
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    holder.communicate()


def test_it_can_be_opened_again_once_closed(tmp_path: Path) -> None:
    with open_data_dir(tmp_path):
        pass
    with open_data_dir(tmp_path):
        pass


def test_it_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), open_data_dir(tmp_path):
        raise RuntimeError("inside")
    with open_data_dir(tmp_path):
        pass


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.write_text("")
    with pytest.raises(DataDirUnusable, match="state is a file"), open_data_dir(place):
        pass


def test_a_file_among_its_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(DataDirUnusable, match="state is a file"), open_data_dir(tmp_path / "state" / "deeper"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand folders to others")
def test_an_ordinary_user_is_refused_a_folder_that_is_not_theirs() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        for folder, bits in (("roots", 0o755), ("everybodys", 0o777), ("groups", 0o770)):
            (base / folder).mkdir()
            (base / folder).chmod(bits)
        os.chown(base / "groups", 0, NOBODY)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answers = [answer_of(base / folder) for folder in ("roots", "everybodys", "groups")]
            expected = ["cannot be written by this user", "everybody may write", "opened"]
            right = all(wanted in answer for wanted, answer in zip(expected, answers, strict=True))
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def answer_of(folder: Path) -> str:
    try:
        with open_data_dir(folder):
            return "opened"
    except DataDirUnusable as error:
        return error.message
