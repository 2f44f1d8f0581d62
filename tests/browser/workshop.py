"""The page's own tools, as its lock file has them, installed outside of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service import ROOT

WEB = ROOT / "web"
STATIC = ROOT / "api" / "static"
UNREACHED = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "ERR_SOCKET_TIMEOUT")


def installed(folder: Path) -> Path:
    """A copy of `web/` with its packages; skips, and says why, where node or the registry is away."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the page is not built again")
    copy = folder / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("node_modules"))
    status, printed = run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=copy)
    if status and any(reason in printed for reason in UNREACHED):
        pytest.skip("the npm registry cannot be reached: the page is not built again")
    assert status == 0, printed
    return copy


def run(*command: str, cwd: Path, **environment: str) -> tuple[int, str]:
    """What a command returned and printed."""
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=170, check=False)
    return done.returncode, done.stdout + done.stderr
