"""Asking a model about the conversation, whatever its server makes of tool calls in it and of its length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig

from graph import choices
from graph.prompts import Prompt
from graph.window import compressed, window
from threadline.domain.errors import ModelFault
from threadline.services.notes import PROMPT

Found = TypeVar("Found")


class Ask(Protocol):
    """Asks a model as a run's config has it; `options` go to its server. See `ask`."""

    async def __call__(
        self,
        messages: Sequence[AnyMessage],
        *,
        config: RunnableConfig,
        prompt: Prompt,
        tags: Sequence[str] = (),
        **options: Any,
    ) -> AIMessage: ...


async def ask(
    messages: Sequence[AnyMessage],
    *,
    model: BaseChatModel,
    specs: Sequence[Mapping[str, Any]],
    name_tools: bool,
    config: RunnableConfig,
    prompt: Prompt,
    tags: Sequence[str] = (),
    **options: Any,
) -> AIMessage:
    """The model's reply, in words: it is not to call tools. Raises ModelFault, or Invalid for what the run chose.

    `prompt` is what the messages begin with: a recording knows the call by its version too.

    Servers disagree about a conversation that holds tool calls. OpenRouter, and Anthropic behind any gateway, want the
    tools named along with it; Ollama calls them whatever `tool_choice` says and refuses them for many models. So
    `name_tools` says what to try first; what is refused, or answered with nothing but a call, is asked the other way.
    """
    options |= choices.options(config)
    about: RunnableConfig = {"tags": list(tags), "metadata": {PROMPT: prompt.label}}
    plain = model.bind(**options).with_config(about)
    if not any(isinstance(message, ToolMessage) for message in messages):
        return await plain.ainvoke(list(messages))
    naming = model.bind_tools([dict(spec) for spec in specs], tool_choice="none", **options)
    naming = naming.with_config(about)
    first, second = (naming, plain) if name_tools else (plain, naming)
    try:
        reply = await first.ainvoke(list(messages))
        if reply.text.strip() or not reply.tool_calls:
            return reply
    except ModelFault as fault:
        if fault.kind != "model_invalid":
            raise
    return await second.ainvoke(list(messages))


async def fitting(
    messages: Sequence[AnyMessage], attempt: Callable[[Sequence[AnyMessage]], Awaitable[Found]], *, size: int
) -> Found:
    """What `attempt` makes of the conversation's window, or, where that is too long for the model, of less of it."""
    try:
        return await attempt(window(messages, size=size))
    except ModelFault as fault:
        if fault.kind != "context_overflow":
            raise
    return await attempt(compressed(messages))
