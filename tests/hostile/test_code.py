"""Code that means harm, run by the tool that runs code: each case is refused or stopped within its limits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from threadline.services.sandbox import MAX_OUTPUT, Ran, Sandbox
from tools import code
from tools.toolbox import Toolbox

SECONDS = 0.5
MEMORY = 50_000_000
SLACK = 4.0
"""Seconds beyond its limit that a case may take on a busy machine."""

REACHES_OUT = {
    "os.system": "import os\nos.system('id')",
    "os.popen": "import os\nos.popen('id').read()",
    "os.fork": "import os\nos.fork()",
    "os.kill": "import os\nos.kill(1, 9)",
    "os.execv": "import os\nos.execv('/bin/sh', ['sh'])",
    "os.listdir root": "import os\nos.listdir('/')",
    "os.environ": "import os\nprint(os.environ['PATH'])",
    "os.getenv of a secret": "import os\nprint(os.getenv('THREADLINE_API_KEYS'))",
    "subprocess": "import subprocess\nsubprocess.run(['id'])",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "urllib": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')",
    "http.client": "import http.client",
    "ctypes": "import ctypes",
    "cffi": "import cffi",
    "importlib": "import importlib\nimportlib.import_module('os').system('id')",
    "__import__": "__import__('os').system('id')",
    "builtins": "import builtins\nbuiltins.__import__('os')",
    "pickle": "import pickle\npickle.loads(b'cos\\nsystem\\n(S\"id\"\\ntR.')",
    "marshal": "import marshal",
    "shutil": "import shutil\nshutil.rmtree('/')",
    "multiprocessing": "import multiprocessing",
    "threading": "import threading",
    "signal": "import signal\nsignal.alarm(1)",
    "gc": "import gc\ngc.get_objects()",
    "inspect": "import inspect\ninspect.currentframe()",
    "sqlite3": "import sqlite3\nsqlite3.connect('/tmp/x.db')",
    "tempfile": "import tempfile\ntempfile.mkdtemp()",
    "pty": "import pty",
    "code": "import code",
    "threadline itself": "import threadline",
    "pydantic_monty": "import pydantic_monty",
    "eval": "eval(\"__import__('os').system('id')\")",
    "exec": "exec('import os')",
    "compile": "compile('1', 'x', 'eval')",
    "breakpoint": "breakpoint()",
    "input": "input()",
    "globals of a function": "def f(): pass\nf.__globals__['__builtins__']",
    "subclasses of object": "().__class__.__bases__[0].__subclasses__()",
    "mro walk": "''.__class__.__mro__[1].__subclasses__()",
    "code object": "(lambda: 0).__code__.replace(co_consts=())",
    "frame of a generator": "(x for x in []).gi_frame",
    "traceback frame": "try:\n    1/0\nexcept Exception as e:\n    e.__traceback__.tb_frame.f_globals",
    "format string attribute": "'{0.__class__.__init__.__globals__}'.format(print)",
    "getattr on builtins": "getattr(print, '__self__').__import__",
    "passwd": "open('/etc/passwd').read()",
    "passwd by pathlib": "from pathlib import Path\nPath('/etc/passwd').read_text()",
    "proc environ": "open('/proc/self/environ').read()",
    "proc mem": "open('/proc/self/mem', 'rb').read(1)",
    "dev mem": "open('/dev/mem', 'rb').read(1)",
    "dev zero": "open('/dev/zero', 'rb').read(10**12)",
    "write outside": "open('/tmp/escaped', 'w').write('x')",
    "descriptor": "open(3).read()",
    "descriptor of a log": "open(2, 'w').write('x')",
    "dots out of the workspace": "open('/workspace/../../etc/passwd').read()",
    "dots by a relative path": "open('../../../etc/passwd').read()",
    "link out of the workspace": "open('/workspace/link').read()",
    "link to a folder": "open('/workspace/folder-link/passwd').read()",
    "write into the workspace": "open('/workspace/kept.txt', 'w').write('x')",
    "append to a file": "open('/workspace/kept.txt', 'a').write('x')",
    "delete a file": "import os\nos.remove('/workspace/kept.txt')",
    "rename a file": "import os\nos.rename('/workspace/kept.txt', '/workspace/x')",
    "make a folder": "import os\nos.mkdir('/workspace/new')",
    "a named pipe": "open('/workspace/pipe').read()",
}
"""None of these may come to anything; each names what it tries."""

EATS = {
    "endless loop": "while True: pass",
    "endless recursion": "def f(): return f()\nf()",
    "mutual recursion": "def f(): return g()\ndef g(): return f()\nf()",
    "recursion caught and begun again": "def f():\n try: f()\n except RecursionError: f()\nf()",
    "tower of powers": "9**9**9**9",
    "large power": "x = 10**10**8",
    "shift": "1 << 10**12",
    "factorial": "x = 1\nfor i in range(1, 10**9): x *= i",
    "long string": "x = 'a' * 10**11",
    "long list": "x = [0] * 10**11",
    "doubling list": "x = [1]\nwhile True: x = x + x",
    "doubling string": "x = 'a'\nwhile True: x += x",
    "dictionary": "x = {}\ni = 0\nwhile True:\n    x[i] = 'a' * 1000\n    i += 1",
    "nested lists": "x = []\nwhile True: x = [x]",
    "range to a list": "list(range(10**12))",
    "sum of a range": "sum(range(10**13))",
    "sorted of a range": "sorted(range(10**10))",
    "bytes": "bytes(10**12)",
    "join": "','.join(['a' * 10**6] * 10**6)",
    "format width": "'%999999999999d' % 1",
    "f-string width": "f'{1:>999999999999}'",
    "replace": "('a' * 10**6).replace('a', 'b' * 10**6)",
    "repr of a deep value": "x = []\nfor i in range(10**6): x = [x]\nrepr(x)",
    "json of a deep value": "import json\nx = []\nfor i in range(10**6): x = [x]\njson.dumps(x)",
    "regular expression": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
    "int of a long text": "int('9' * 10**8)",
    "text of a long int": "str(10 ** 10**7)",
    "sleep": "import time\nwhile True: time.sleep(10)",
    "prints without end": "while True: print('x' * 1000)",
    "prints one long line": "print('x' * 10**9)",
    "deep source": "(" * 5000 + ")" * 5000,
    "deep unary source": "-" * 15000 + "1",
    "wide source": "x = [" + "0," * 9000 + "]\nwhile True: x = x + x",
    "lambda tower": "f = lambda: 0\nwhile True: f = (lambda g: lambda: g())(f)",
    "equality of a cycle": "a = []\na.append(a)\nb = []\nb.append(b)\na == b",
    "hash collisions": "x = {i * (2**61 - 1): 1 for i in range(10**7)}",
    "min of a long chain": "while True: min(range(10**7))",
    "exception in a loop": "while True:\n    try:\n        1/0\n    except ZeroDivisionError:\n        pass",
    "exception that is caught": "while True:\n  try:\n    while True: pass\n  except BaseException:\n    pass",
}
"""Each of these wants more than it may have."""

BROKEN = {
    "no Python at all": "이것은 파이썬이 아니다",
    "half a function": "def f(:",
    "null byte": "1\0+1",
    "lone surrogate": "'\\ud800'",
    "tabs and spaces": "if 1:\n\tx=1\n        y=2",
    "raise": "raise SystemExit",
    "raise of what is no error": "raise 'x'",
    "exit": "exit(0)",
    "quit": "quit()",
    "assert": "assert False, 'no'",
    "yield outside": "yield 1",
    "await outside": "await x",
    "a class that is odd": "class A(int): pass",
    "returns a function": "lambda: 0",
    "returns a module": "import math\nmath",
    "returns a cycle": "a = []\na.append(a)\na",
}
"""Each of these fails, or does nothing much, and says so in words."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with a file, and traps."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "kept.txt").write_text("안녕", encoding="utf-8")
    (workspace / "link").symlink_to("/etc/passwd")
    (workspace / "folder-link").symlink_to("/etc")
    os.mkfifo(workspace / "pipe")
    return workspace


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(seconds=SECONDS, memory=MEMORY)
    yield sandbox
    await sandbox.aclose()


async def run(sandbox: Sandbox, source: str, folder: Path) -> Ran:
    """Run it, in the time it may take, and prove that the sandbox still works."""
    began = time.monotonic()
    async with asyncio.timeout(SECONDS + SLACK):
        ran = await sandbox.run(source, folder=folder)
    assert time.monotonic() - began < SECONDS + SLACK
    assert (await sandbox.run("6*7")).value == "42"
    return ran


def assert_harmless(ran: Ran, folder: Path) -> None:
    said = f"{ran.printed} {ran.value} {ran.error}"
    assert "root:" not in said
    assert "/usr/bin" not in said
    assert len(ran.printed) <= MAX_OUTPUT
    assert sorted(path.name for path in folder.iterdir()) == ["folder-link", "kept.txt", "link", "pipe"]
    assert (folder / "kept.txt").read_text(encoding="utf-8") == "안녕"
    assert not Path("/tmp/escaped").exists()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", REACHES_OUT)
async def test_code_that_reaches_out(name: str, sandbox: Sandbox, folder: Path) -> None:
    ran = await run(sandbox, REACHES_OUT[name], folder)

    assert_harmless(ran, folder)
    assert ran.error or ran.value in (None, "None"), ran


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", EATS)
async def test_code_that_eats(name: str, sandbox: Sandbox, folder: Path) -> None:
    ran = await run(sandbox, EATS[name], folder)

    assert_harmless(ran, folder)
    assert ran.error or name in {"regular expression", "min of a long chain", "sum of a range", "hash collisions"}, ran


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", BROKEN)
async def test_code_that_is_broken(name: str, sandbox: Sandbox, folder: Path) -> None:
    ran = await run(sandbox, BROKEN[name], folder)

    assert_harmless(ran, folder)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_code_is_for(sandbox: Sandbox, folder: Path) -> None:
    ran = await sandbox.run("print('합', sum([1, 2, 3]))\nopen('/workspace/kept.txt').read() + '!'", folder=folder)

    assert ran == Ran("합 6\n", "'안녕!'")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_printed_before_a_failure_is_kept(sandbox: Sandbox) -> None:
    ran = await sandbox.run("print('so far')\n1/0")

    assert (ran.printed, ran.error) == ("so far\n", "ZeroDivisionError: division by zero")


@pytest.mark.asyncio(loop_scope="module")
async def test_runs_know_nothing_of_each_other(sandbox: Sandbox) -> None:
    await sandbox.run("secret = 'mine'")

    assert (await sandbox.run("secret")).error == "NameError: name 'secret' is not defined"


@pytest.mark.asyncio(loop_scope="module")
async def test_one_that_is_cancelled_frees_its_worker(sandbox: Sandbox) -> None:
    tasks = [asyncio.create_task(sandbox.run("while True: pass")) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    async with asyncio.timeout(SLACK):
        assert (await sandbox.run("1+1")).value == "2"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_tool_tells_the_model(sandbox: Sandbox, folder: Path) -> None:
    toolbox = Toolbox([code.tool(sandbox.run, folder_of=lambda asker: folder, timeout=5)])

    outcome = await toolbox.call("code", {"code": "print('hi')\n[1, 2]"})
    assert outcome.result == {"printed": "hi\n", "value": "[1, 2]", "error": None}
    assert (await toolbox.call("code", {"code": ""})).error
    assert (await toolbox.call("code", {"code": "x" * 20_001})).error
    assert (await toolbox.call("code", {"code": "1\0"})).error == "the code holds a null byte"
