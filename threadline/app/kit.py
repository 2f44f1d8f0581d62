"""What the built-in agent is built from, one set an event loop: models, connections, and what its tools work with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from threadline import __version__
from threadline.app.settings import Settings
from threadline.app.trust import trusted
from threadline.domain.egress import Egress
from threadline.services.confined import Confined
from threadline.services.egress import Guard, guarded_client
from threadline.services.models import ModelConfig, Models, open_models
from threadline.services.sandbox import Sandbox
from threadline.services.workspace import Quota, Workspaces

USER_AGENT = f"Threadline/{__version__}"
PARSE_MEMORY = 1_000_000_000
PARSE_OUTPUT = 5_000_000
"""Bytes that reading a page or a document may take, and that its text may have."""
PARSE_AT_ONCE = 2


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AgentKit:
    """What the built-in agent is built from. `tools` says what tools it has, once it is built."""

    settings: Settings
    models: Models
    http: httpx.AsyncClient
    public: httpx.AsyncClient
    """Goes to public addresses only, and to those the settings allow."""
    parse_page: Confined
    sandbox: Sandbox
    workspaces: Workspaces
    tools: list[dict[str, Any]] = field(default_factory=list)

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.public.aclose()
        await self.sandbox.aclose()
        await self.models.aclose()


_kits: WeakKeyDictionary[asyncio.AbstractEventLoop, AgentKit] = WeakKeyDictionary()


def open_already(loop: asyncio.AbstractEventLoop) -> AgentKit | None:
    """The loop's kit, if it has one."""
    return _kits.get(loop)


def agent_kit(loop: asyncio.AbstractEventLoop) -> AgentKit:
    """The loop's kit: the one its service opened, or a new one from the environment where another server runs the
    agent. Blocks for some milliseconds while it loads certificates."""
    if loop not in _kits:
        _kits[loop] = make_kit(Settings())
    return _kits[loop]


def make_kit(settings: Settings) -> AgentKit:
    """A kit that nobody shares. Blocks for some milliseconds."""
    config = ModelConfig(
        openrouter_api_key=settings.openrouter_api_key,
        openrouter_base_url=settings.openrouter_base_url,
        openai_api_key=settings.openai_api_key,
        openai_base_url=settings.openai_base_url,
        model=settings.model,
        analysis_model=settings.analysis_model,
        fallback_models=settings.fallback_models,
        temperature=settings.temperature,
        timeout=settings.model_timeout,
        retries=settings.model_retries,
        offline_delay=settings.offline_delay,
        verify=trusted(),
    )
    seconds, headers = settings.tool_timeout, {"User-Agent": USER_AGENT}
    return AgentKit(
        settings,
        open_models(config),
        http=httpx.AsyncClient(timeout=seconds, headers=headers, verify=trusted()),
        public=guarded_client(
            Guard(Egress.parse(settings.web_hosts)), verify=trusted(), timeout=seconds, headers=headers
        ),
        parse_page=Confined(
            "tools.page_text:extract",
            seconds=seconds / 2,
            memory=PARSE_MEMORY,
            output=PARSE_OUTPUT,
            gate=asyncio.Semaphore(PARSE_AT_ONCE),
        ),
        sandbox=Sandbox(seconds=settings.code_seconds, memory=settings.code_memory_mb * 1_000_000),
        workspaces=Workspaces(
            settings.data_dir.expanduser().absolute() / "workspaces",
            quota=Quota(total=settings.workspace_bytes),
        ),
    )


@asynccontextmanager
async def open_kit(settings: Settings) -> AsyncIterator[AgentKit]:
    """The running loop's kit, for as long as the service is open."""
    loop = asyncio.get_running_loop()
    outer = _kits.get(loop)  # of a service that this one runs beside
    kit = _kits[loop] = await asyncio.to_thread(make_kit, settings)
    try:
        yield kit
    finally:
        del _kits[loop]
        if outer is not None:
            _kits[loop] = outer
        await kit.aclose()
