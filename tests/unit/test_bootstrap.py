"""The first start: which environment is good enough, how it is made, and what is said when it cannot be.

The packages themselves are not installed here; a stand-in for uv takes note of what it is asked to do.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from threadline import __main__ as bootstrap
from threadline.__main__ import BootstrapError, environment_folder, environment_python, prepare, read_stamp, state

REPOSITORY = Path(bootstrap.__file__).parent.parent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in for uv is a shell script")

PREPARE = """
import sys
from pathlib import Path
from threadline.__main__ import prepare
prepare(Path(sys.argv[1]), dev=False)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout, as far as the bootstrap looks at one, in a folder with a space."""
    root = tmp_path / "a checkout"
    root.mkdir()
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (root / name).write_text(f"# {name}\n")
    return root


class Installer:
    """A stand-in for uv: `calls` are its command lines so far; `does` is shell it runs instead of installing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls"
        self.does("true")

    def does(self, shell: str) -> None:
        script = self.folder / "uv"
        script.write_text(f'#!/bin/sh\necho "$@" >> "{self.log}"\n{shell}\n')
        script.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return Installer(folder)


def test_the_first_start_makes_the_environment(root: Path, uv: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    assert state(root, dev=False) == "build"
    prepare(root, dev=False)
    assert state(root, dev=False) == "ready"
    python = environment_python(root)
    assert uv.calls == [
        f"pip install --python {python} --quiet --require-hashes -r requirements.lock",
        f"pip install --python {python} --quiet --no-deps --no-build-isolation -e .",
    ]
    assert subprocess.run([python, "-c", "import sys; assert sys.prefix != sys.base_prefix"]).returncode == 0
    assert "Preparing the environment (once, about a minute)…" in capsys.readouterr().err


def test_the_next_start_does_nothing(root: Path, uv: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(root, dev=False)
    capsys.readouterr()
    calls = uv.calls
    prepare(root, dev=False)
    assert uv.calls == calls
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_into_what_is_there(root: Path, uv: Installer, changed: str) -> None:
    prepare(root, dev=False)
    kept = environment_folder(root) / "kept"
    kept.touch()
    (root / changed).write_text("# changed\n")
    assert state(root, dev=False) == "update"
    prepare(root, dev=False)
    assert state(root, dev=False) == "ready"
    assert len(uv.calls) == 4
    assert kept.exists()


def test_the_tests_add_their_tools_and_later_starts_keep_them(root: Path, uv: Installer) -> None:
    prepare(root, dev=False)
    assert state(root, dev=True) == "update"
    prepare(root, dev=True)
    assert "-r requirements-dev.lock" in uv.calls[2]
    assert state(root, dev=False) == "ready"
    (root / "requirements-dev.lock").write_text("# changed\n")
    prepare(root, dev=False)
    assert "-r requirements-dev.lock" in uv.calls[4]


def test_an_interrupted_start_is_repaired(root: Path, uv: Installer) -> None:
    debris = environment_folder(root) / "lib" / "half a package"
    uv.does(f'mkdir -p "{debris}"; kill -9 $PPID')
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run([sys.executable, "-c", PREPARE, str(root)], env=environment, stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert debris.exists()
    assert state(root, dev=False) == "build"

    uv.does("true")
    prepare(root, dev=False)
    assert state(root, dev=False) == "ready"
    assert not debris.exists()


def test_a_failed_install_says_why_and_what_to_do(root: Path, uv: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)  # as on a Debian without python3-venv
    uv.does('echo "no route to the index" >&2; exit 2')
    with pytest.raises(BootstrapError, match=r"(?s)could not be installed:\n  no route to the index\n.*start again"):
        prepare(root, dev=False)
    assert state(root, dev=False) == "build"


def test_two_first_starts_at_once_install_once(root: Path, uv: Installer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    uv.does(f'[ -e "{tmp_path}/first" ] || {{ touch "{tmp_path}/first"; read line < "{gate}"; }}')
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", PREPARE, str(root)]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "first").exists)
    second = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()
    gate.write_text("go\n")
    assert first.communicate()[0] is None
    second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(uv.calls) == 2


def test_a_moved_checkout_gets_a_new_environment(root: Path, uv: Installer, tmp_path: Path) -> None:
    prepare(root, dev=False)
    moved = root.rename(tmp_path / "elsewhere")
    assert state(moved, dev=False) == "build"


def test_another_python_below_means_a_new_environment(root: Path, uv: Installer, tmp_path: Path) -> None:
    prepare(root, dev=False)
    python = environment_python(root)
    real = python.resolve()
    python.unlink()
    assert state(root, dev=False) == "build"  # it was uninstalled
    upgraded = tmp_path / "python3.99"
    upgraded.symlink_to("/bin/sh")
    python.symlink_to(upgraded)
    assert state(root, dev=False) == "build"  # it was replaced
    python.unlink()
    python.symlink_to(real)
    assert state(root, dev=False) == "ready"


def test_an_environment_somebody_made_is_added_to_and_never_removed(
    root: Path, uv: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = environment_folder(root) / "theirs"
    theirs.mkdir(parents=True)
    (environment_folder(root) / "pyvenv.cfg").touch()
    environment_python(root).parent.mkdir()
    environment_python(root).symlink_to(sys.executable)
    assert state(root, dev=False) == "update"

    uv.does("exit 2")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(BootstrapError):
        prepare(root, dev=False)
    assert state(root, dev=False) == "update"

    uv.does("true")
    prepare(root, dev=False)
    assert state(root, dev=False) == "ready"
    (root / "requirements.lock").write_text("# changed\n")
    prepare(root, dev=False)
    assert theirs.exists()


def test_a_damaged_stamp_counts_as_none(root: Path, uv: Installer) -> None:
    prepare(root, dev=False)
    stamp = environment_folder(root) / bootstrap.STAMP
    stamp.write_text("{")
    assert read_stamp(root) is None
    prepare(root, dev=False)
    assert state(root, dev=False) == "ready"


def test_a_python_without_pip_is_told_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(BootstrapError, match="sudo apt install python3") as refused:
        prepare(root, dev=False)
    assert "install uv" in str(refused.value)


def test_an_incomplete_checkout_is_told(root: Path) -> None:
    (root / "requirements.lock").unlink()
    with pytest.raises(BootstrapError, match=r"requirements\.lock cannot be read"):
        prepare(root, dev=False)


def test_a_checkout_that_cannot_be_written_is_told(root: Path) -> None:
    environment_folder(root).write_text("a file where the folder should be")
    with pytest.raises(BootstrapError, match=r"the environment cannot be written: .*\.venv"):
        prepare(root, dev=False)


def test_pip_settings_of_the_user_apply_but_never_send_packages_elsewhere(
    root: Path, uv: Installer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "theirs")
    uv.does(f'env > "{tmp_path}/environment"')
    prepare(root, dev=False)
    seen = (tmp_path / "environment").read_text().splitlines()
    assert "PIP_USER=0" in seen
    assert "PIP_INDEX_URL=theirs" in seen


def test_an_installed_project_runs_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "threadline-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: threadline\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nthreadline = threadline.app.cli:main\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bootstrap, "runs_inside", lambda root: False)
    assert bootstrap.next_process(["up"]) is None
    (info / "entry_points.txt").write_text("[console_scripts]\nthreadline = somebody.elses:main\n")
    assert not bootstrap.is_installed()


def test_an_old_python_can_read_the_file_and_is_told() -> None:
    source = Path(bootstrap.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    check = next(i for i, node in enumerate(tree.body) if isinstance(node, ast.If))
    needs_a_new_python = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    assert not any(isinstance(node, needs_a_new_python) for node in tree.body[:check])
    assert "from __future__ import annotations" not in source  # a SyntaxError before 3.7


# The locks


def pins(name: str) -> dict[str, set[str]]:
    """Each package of a lock with its versions; there are several where they depend on the Python."""
    found: dict[str, set[str]] = {}
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def test_the_lock_of_the_tests_is_a_superset_at_the_same_versions() -> None:
    runtime, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert runtime.items() <= dev.items()
    assert runtime.keys() < dev.keys()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_no_lock_names_an_index(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"requirements.lock": project["dependencies"]}
    wanted["requirements-dev.lock"] = project["dependencies"] + project["optional-dependencies"]["dev"]
    for name, requirements in wanted.items():
        locked = pins(name)
        for requirement in map(Requirement, requirements):
            versions = locked[requirement.name.lower().replace("_", "-").replace(".", "-")]
            assert all(requirement.specifier.contains(Version(version)) for version in versions), requirement


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
