"""`langgraph dev`, LangGraph's own development server, as a process of its own on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

START_SECONDS = 45


@asynccontextmanager
async def langgraph_dev(project: Path, **environment: str) -> AsyncIterator[LangGraphClient]:
    """LangGraph's development server over the project, without a key, and its own client."""
    port = free_port()
    home = project.parent / "home"
    home.mkdir()
    log = project.parent / "langgraph.log"
    flags = ("--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port))
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "langgraph_cli", "dev", *flags),
            cwd=project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "LANGSMITH_TRACING": "false",
                "LANGGRAPH_CLI_NO_ANALYTICS": "1",
                "LANGGRAPH_NO_VERSION_CHECK": "true",  # it would ask a package index
                **environment,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await until_up(url, child, log)
        async with get_client(url=url, api_key=None, timeout=60) as client:
            yield client
        assert "Blocking call" not in log.read_text(encoding="utf-8")
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), 10)
            except TimeoutError:
                child.kill()
                await child.wait()


async def until_up(url: str, child: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as http:
        while True:
            assert child.returncode is None, log.read_text(encoding="utf-8")
            try:
                if (await http.get(f"{url}/ok")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
