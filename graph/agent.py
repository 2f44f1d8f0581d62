"""The entry that `langgraph.json` names: the built-in agent, compiled without a checkpointer.

Models and tools open once per event loop at the first call; importing this module starts nothing.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from langgraph.graph.state import CompiledStateGraph

from graph import prompts
from graph.build import build
from graph.choices import Choices
from graph.state import State
from threadline.app.kit import AgentKit, agent_kit, open_already
from threadline.app.settings import Settings
from threadline.domain.egress import Blocked
from threadline.services.confined import Failed
from threadline.services.prompts import labels
from tools.catalog import Equipment, ToolConfig, open_toolbox

Agent = CompiledStateGraph[State, Choices, State, State]

_compiled: WeakKeyDictionary[AgentKit, Agent] = WeakKeyDictionary()


async def agent() -> Agent:
    """The agent for the running event loop. The server that runs it brings the checkpointer."""
    loop = asyncio.get_running_loop()
    kit = open_already(loop)
    if kit is None:
        kit = await asyncio.to_thread(agent_kit, loop)
    if kit not in _compiled:
        _compiled[kit] = await asyncio.to_thread(_compile, kit)
    return _compiled[kit]


def _compile(kit: AgentKit) -> Agent:
    toolbox, listed = open_toolbox(_config(kit.settings), _equipment(kit))
    kit.tools[:] = listed
    models = kit.models
    versions = {name: prompts.load(name).version for name in prompts.NAMES}
    compiled = build(
        chat=models.chat,
        analysis=models.analysis,
        specs=toolbox.specs(),
        tools=toolbox,
        window=kit.settings.window,
        name_tools=models.provider == "openrouter",
    ).compile()
    return compiled.with_config(metadata=labels(versions))


def _config(settings: Settings) -> ToolConfig:
    return ToolConfig(
        timeout=settings.tool_timeout,
        cache_size=settings.tool_cache_size,
        cache_ttl=settings.tool_cache_ttl,
        weather_url=settings.weather_url,
        geocoding_url=settings.geocoding_url,
        wikipedia_url=settings.wikipedia_url,
        tavily_url=settings.tavily_url,
        tavily_api_key=settings.tavily_api_key,
        brave_url=settings.brave_url,
        brave_api_key=settings.brave_api_key,
        searxng_url=settings.searxng_url,
        search_providers=settings.search_providers,
        hacker_news_url=settings.hacker_news_url,
        news_feeds=settings.news_feeds,
        sql_url=settings.sql_url,
        sql_seconds=settings.sql_timeout,
        enabled=settings.tools,
        ask_before=settings.ask_before,
    )


def _equipment(kit: AgentKit) -> Equipment:
    workspaces = kit.workspaces
    return Equipment(
        http=kit.http,
        public=kit.public,
        parse_page=kit.parse_page,
        refused=(Blocked, Failed),
        workspace_of=lambda asker: workspaces.of(asker.session),
        folder_of=lambda asker: workspaces.of(asker.session).folder if asker.session else None,
        run_code=kit.sandbox.run,
    )
