"""`python3 -m threadline COMMAND`: makes the environment beside this package on the first start, then runs the command.

Standard library only, and readable by Python 3.6, so that an old Python gets an answer instead of a SyntaxError.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time

if sys.version_info < (3, 11):  # noqa: UP036 - the very Pythons the package does not support are the ones addressed here
    sys.exit(
        "Threadline needs Python 3.11 or newer; this is Python {}.{}.\n"
        "Install a newer one and name it, for example: python3.11 -m threadline".format(*sys.version_info[:2])
    )

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"  # a superset of LOCK, at the same versions
DEV_COMMANDS = frozenset({"test"})
STAMP = "threadline-stamp.json"
GUARD = "threadline.lock"

State = Literal["ready", "update", "build"]


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


def main() -> None:
    """Run the command in the project's environment, which is made or brought up to date first if need be."""
    try:
        elsewhere = next_process(sys.argv[1:])
    except BootstrapError as error:
        sys.exit(f"threadline: {error}")
    except KeyboardInterrupt:
        sys.exit("\nthreadline: interrupted; the next start repairs the environment.")
    if elsewhere is not None:
        replace_process(elsewhere)

    from threadline.app.cli import main as run

    run()


def next_process(arguments: Sequence[str]) -> list[str] | None:
    """The process to go on as, its environment ready; None if that is this one."""
    inside = runs_inside(ROOT)
    own = inside and read_stamp(ROOT) is not None
    if not own and is_installed():
        return None
    dev = bool(arguments) and arguments[0] in DEV_COMMANDS
    todo = state(ROOT, dev=dev)
    if inside and todo == "ready":
        return None
    if inside and todo == "build":
        # Nobody can saw off the branch they sit on: the interpreter below this one rebuilds the environment.
        return [base_interpreter(), str(Path(__file__).resolve()), *arguments]
    prepare(ROOT, dev=dev)
    return [str(environment_python(ROOT)), "-m", "threadline", *arguments]


def replace_process(command: list[str]) -> NoReturn:
    """Go on as `command`. Windows cannot replace a process, so there it is awaited."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


# Where things are


def environment_folder(root: Path) -> Path:
    return root / ".venv"


def environment_python(root: Path) -> Path:
    folder = environment_folder(root)
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def base_interpreter() -> str:
    return getattr(sys, "_base_executable", None) or sys.executable


def runs_inside(root: Path) -> bool:
    """Whether this interpreter is the one of the environment beside the package."""
    folder = environment_folder(root)
    return folder.exists() and Path(sys.prefix).samefile(folder)


def is_installed() -> bool:
    """Whether this interpreter has the project installed: in an image, or in an environment someone made themselves."""
    from importlib import metadata

    try:
        scripts = metadata.distribution("threadline").entry_points
    except metadata.PackageNotFoundError:
        return False
    return any(script.value == "threadline.app.cli:main" for script in scripts)


# What the environment is worth


def read_stamp(root: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((environment_folder(root) / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(root: Path, stamp: Mapping[str, Any]) -> None:
    """In one step, so that a crash leaves the old stamp or the new one."""
    target = environment_folder(root) / STAMP
    draft = target.with_suffix(".tmp")
    draft.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    draft.replace(target)


def place(root: Path) -> dict[str, str]:
    """What an environment depends on besides its packages: it can be neither moved nor given another Python."""
    return {
        "root": str(root),
        "interpreter": os.path.realpath(environment_python(root)),
        "platform": sysconfig.get_platform(),
    }


def contents(root: Path, *, dev: bool) -> dict[str, Any]:
    """What is installed: the lock by its hash, and the project by the file that describes it."""
    lock = DEV_LOCK if dev else LOCK
    return {"lock": lock, "lock_sha256": digest(root / lock), "project_sha256": digest(root / "pyproject.toml")}


def digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BootstrapError(f"{path} cannot be read ({error.strerror}). Start in a complete checkout.") from None


def state(root: Path, *, dev: bool) -> State:
    """`ready`, `update` (install into what is there) or `build` (start afresh)."""
    stamp = read_stamp(root)
    if stamp is None:
        # An environment somebody else made is added to, never removed.
        return "update" if (environment_folder(root) / "pyvenv.cfg").exists() else "build"
    if not stamp.get("complete") or not os.access(environment_python(root), os.X_OK):
        return "build"
    if any(stamp.get(key) != value for key, value in place(root).items()):
        return "build"
    if any(stamp.get(key) != value for key, value in contents(root, dev=wants_dev(stamp, dev=dev)).items()):
        return "update"
    return "ready"


def wants_dev(stamp: Mapping[str, Any] | None, *, dev: bool) -> bool:
    """An environment that has the tools of development keeps them."""
    return dev or (stamp is not None and stamp.get("lock") == DEV_LOCK)


# Making it


def prepare(root: Path, *, dev: bool) -> None:
    """Bring the environment up to date; one process at a time does, the others wait for it."""
    if state(root, dev=dev) == "ready":
        return
    try:
        environment_folder(root).mkdir(exist_ok=True)
        with guarded(environment_folder(root) / GUARD):
            install(root, dev=dev)
    except OSError as error:
        raise BootstrapError(
            f"the environment cannot be written: {error.strerror or error} ({error.filename or root}).\n"
            "Start in a checkout that belongs to you, with about 1 GB of free space."
        ) from error


def install(root: Path, *, dev: bool) -> None:
    todo, stamp = state(root, dev=dev), read_stamp(root)
    if todo == "ready":  # made by the process waited for
        return
    dev = wants_dev(stamp, dev=dev)
    ours = todo == "build" or bool(stamp and stamp.get("ours"))
    wanted = contents(root, dev=dev)
    started = time.monotonic()
    if todo == "build":
        say("Preparing the environment (once, about a minute)…")
    else:
        say("Bringing the environment up to date…")

    if ours:
        write_stamp(root, {"ours": True, "complete": False})
    else:
        (environment_folder(root) / STAMP).unlink(missing_ok=True)
    if todo == "build":
        empty(environment_folder(root))
        make_environment(root)
    install_packages(root, wanted["lock"])
    write_stamp(root, {"ours": ours, "complete": True, **place(root), **wanted})
    say(f"The environment is ready ({time.monotonic() - started:.0f} s).")


def empty(folder: Path) -> None:
    """Remove what an interrupted or outdated start left, but for the lock this process holds and the stamp."""
    for entry in folder.iterdir():
        if entry.name in (GUARD, STAMP):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def make_environment(root: Path) -> None:
    """A bare environment; whoever installs into it brings uv or adds pip."""
    import venv

    venv.EnvBuilder(symlinks=os.name != "nt", with_pip=False).create(environment_folder(root))


def install_packages(root: Path, lock: str) -> None:
    """The locked packages by their hashes, then the project itself, which takes no download."""
    with_uv = shutil.which("uv") is not None
    try:
        run_installer(root, lock, with_uv=with_uv)
    except BootstrapError:
        if not with_uv or importlib.util.find_spec("ensurepip") is None:
            raise
        # uv does not read pip's settings: behind a company's index only pip may find its way.
        run_installer(root, lock, with_uv=False)


def run_installer(root: Path, lock: str, *, with_uv: bool) -> None:
    python = str(environment_python(root))
    if not with_uv and not any(environment_folder(root).glob("[Ll]ib/**/site-packages/pip")):
        add_pip(root)
    installer = ["uv", "pip", "install", "--python", python] if with_uv else [python, "-m", "pip", "install"]
    run([*installer, "--quiet", "--require-hashes", "-r", lock], root)
    run([*installer, "--quiet", "--no-deps", "--no-build-isolation", "-e", "."], root)


NO_ENSUREPIP = """this Python comes without pip. Do one of these and start again:
  Debian, Ubuntu:  sudo apt install python{0}.{1}-venv   (or python3-venv)
  anywhere:        install uv, which is used when it is found"""


def add_pip(root: Path) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        raise BootstrapError(NO_ENSUREPIP.format(*sys.version_info[:2]))
    run([str(environment_python(root)), "-I", "-m", "ensurepip", "--default-pip"], root)


def run(command: Sequence[str], root: Path) -> None:
    """Run one installer; its words are shown only if it fails. The user's index and proxy settings apply."""
    environment = {**os.environ, "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PYTHONHOME", None)
    done = subprocess.run(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,  # so that it keeps `guarded`'s lock should this process be killed before it
    )
    if done.returncode != 0:
        raise BootstrapError(
            f"the packages could not be installed:\n{tail(done.stdout)}\n"
            "Nothing is lost: start again once the cause above is gone (often the network or a proxy)."
        )


def tail(output: bytes | str | None, lines: int = 12) -> str:
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Hold the file's lock; the system lets go of it once this process and its installers end, however they end."""
    with path.open("a+b") as file:
        os.set_inheritable(file.fileno(), True)
        if not try_lock(file.fileno()):
            say("Another start is preparing the environment; waiting for it…")
            while not try_lock(file.fileno()):
                time.sleep(0.2)
        yield


def try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def say(text: str) -> None:
    encoding = sys.stderr.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
