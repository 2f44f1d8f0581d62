"""The chat model the graph holds: a list of models that stand in for each other until one of them has begun to speak.

The inner model is called below LangChain's callbacks, so that every token and every call is reported exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import structlog
from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel, agenerate_from_stream
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from threadline.domain.errors import ModelFault
from threadline.services.models.server import ModelServer
from threadline.services.recording import taken

log = structlog.get_logger(__name__)


class ResilientChat(BaseChatModel):
    """Asks `names` in order; None is the server's default model. Raises `ModelFault` and nothing else.

    A failure before the first text moves on to the next model. After it, the failure is raised: the reader keeps what
    he has seen, and nothing is started over behind his back. A call that names its `model` gets that one or none.
    """

    server: ModelServer
    names: tuple[str | None, ...] = (None,)
    cache: BaseCache | bool | None = Field(default=False, exclude=True)  # recorded answers it gives itself

    @property
    def _llm_type(self) -> str:
        return "threadline"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.names[0], "fallbacks": self.names[1:], "temperature": self.server.temperature}

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        if answer := taken():
            for chunk in answer.chunks():
                yield chunk
            return
        asked = kwargs.pop("model", None)
        faults: list[ModelFault] = []
        for name in (asked,) if asked else self.names:
            if faults:
                log.warning("model_fallback", to=name, kind=faults[-1].kind)
            begun = False
            try:
                model = name or await self.server.default_model()
                async with aclosing(self.server.stream(model, messages, stop=stop, options=kwargs)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except ModelFault as fault:
                if begun:
                    raise
                faults.append(fault)
        raise _worst(faults)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Streams too: a long answer then needs no long timeout, and an incomplete one is found out the same way."""
        async with aclosing(self._astream(messages, stop=stop, **kwargs)) as chunks:
            return await agenerate_from_stream(chunks)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """For threads without an event loop: one loop and one connection per call."""

        async def call() -> ChatResult:
            async with aclosing(self.server.twin()) as server:
                chat = ResilientChat(server=server, names=self.names)
                return await chat._agenerate(messages, stop=stop, **kwargs)

        return asyncio.run(call())

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """`tool_choice` is a tool's name, `auto`, `none`, `any` (or True), or OpenAI's own form."""
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = _choice(tool_choice, {tool["function"]["name"] for tool in formatted})
        return self.bind(tools=formatted, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.server.provider
        if name := kwargs.get("model") or self.names[0]:
            params["ls_model_name"] = name
        return params


def _worst(faults: list[ModelFault]) -> ModelFault:
    """The one to raise when every model failed: an overflow, since the caller can mend it, else the first one's."""
    chosen = next((fault for fault in faults if fault.kind == "context_overflow"), faults[0])
    if len(faults) == 1:
        return chosen
    fault = ModelFault(chosen.kind, " ".join(fault.message for fault in faults))
    fault.__cause__ = chosen
    return fault


def _choice(choice: str | dict[str, Any] | bool, names: set[str]) -> str | dict[str, Any]:
    if isinstance(choice, dict):
        return choice
    if choice is True or choice == "any":
        return "required"
    return {"type": "function", "function": {"name": choice}} if choice in names else str(choice)
