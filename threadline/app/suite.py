"""Runs the project's tests on the checkout, in the environment this process runs in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import threadline
from threadline.domain.errors import Invalid

ROOT = Path(threadline.__file__).resolve().parent.parent


def _has_browser() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


def _has_fonts() -> bool:
    return any(Path("/usr/share/fonts").rglob("*CJK*"))


def _has_node() -> bool:
    return shutil.which("node") is not None


SYSTEM_PACKAGES: dict[str, Callable[[], bool]] = {
    "chromium": _has_browser,
    "fonts-noto-cjk": _has_fonts,
    "nodejs": _has_node,
}
"""What the tests of the page and of foreign clients need from the system, by Debian's names."""


def run(arguments: Sequence[str], *, long: bool) -> int:
    """pytest's exit code."""
    if importlib.util.find_spec("pytest") is None or not (ROOT / "tests").is_dir():
        raise Invalid("The tests and their tools are not here. In a checkout, run: python3 -m threadline test")
    selection = [] if long else ["-m", "not long"]
    command = [sys.executable, "-m", "pytest", *selection, *arguments]
    with subprocess.Popen(command, cwd=ROOT) as pytest:
        # Ctrl-C reaches pytest as well, which has fixtures to close and a summary to print.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return pytest.wait()
        finally:
            signal.signal(signal.SIGINT, before)


def install_system_packages() -> None:
    """Install what is missing where this user can; say plainly what stays missing."""
    missing = [name for name, is_there in SYSTEM_PACKAGES.items() if not is_there()]
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.name != "posix" or os.geteuid() != 0:
        _say(f"Missing for the tests of the page and of foreign clients: {', '.join(missing)}.")
        _say(f"On Debian or Ubuntu: sudo apt-get install {' '.join(missing)}")
        return
    _say(f"Installing for the tests: {', '.join(missing)}…")
    install = [apt, "install", "-y", "-q", "--no-install-recommends", *missing]
    if not _succeeds(install) and not (_succeeds([apt, "update", "-q"]) and _succeeds(install)):
        _say(f"They could not be installed. To try it yourself: apt-get install {' '.join(missing)}")


def _succeeds(command: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
