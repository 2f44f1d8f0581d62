"""The model that answers without a key: fixed rules in English and Korean, the same answer to the same messages.

It analyses (`response_format`), calls tools (`bind_tools`) and answers, as a real model does, so that a graph, the
stream and the page work out of the box. It knows nothing by heart: what it understands is in the tables of
`offline_rules` and `offline_chat`, what it says in `offline_phrases` and `offline_answers`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from threadline.services.models.offline_answers import answer
from threadline.services.models.offline_chat import recalled
from threadline.services.models.offline_conversation import Conversation, Plan, text_of
from threadline.services.models.offline_offer import (
    Schema,
    fit,
    fitting,
    intent_schema,
    offered_as_tools,
    offered_in,
)
from threadline.services.models.offline_phrases import said
from threadline.services.models.offline_plan import next_call, understand
from threadline.services.recording import taken

NAME = "threadline-offline"
_METADATA = {"model_name": NAME, "model_provider": "threadline", "finish_reason": "stop", "cost": 0.0}
_TOKEN = re.compile(r"\s*\S+\s*?(?=\S|$)|\s+")


class OfflineModel(BaseChatModel):
    """A deterministic chat model. `delay` is in seconds before each token.

    Token counts in `usage_metadata` are an estimate: a quarter of the UTF-8 bytes, as no tokenizer is involved.
    """

    delay: float = 0.0
    cache: BaseCache | bool | None = Field(default=False, exclude=True)  # recorded answers it gives itself

    @property
    def _llm_type(self) -> str:
        return NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": NAME}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools it may call; those it has a use for are told by their names."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if recorded := taken():
            return recorded.result()
        reply = reply_to(messages, kwargs)
        if self.delay:
            time.sleep(self.delay * len(reply.tokens))
        return _result(reply, messages)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if recorded := taken():
            return recorded.result()
        reply = reply_to(messages, kwargs)
        if self.delay:
            await asyncio.sleep(self.delay * len(reply.tokens))
        return _result(reply, messages)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if recorded := taken():
            yield from recorded.chunks()
            return
        for chunk in _chunks(reply_to(messages, kwargs), messages):
            if self.delay and chunk.message.content:
                time.sleep(self.delay)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if recorded := taken():
            for chunk in recorded.chunks():
                yield chunk
            return
        for chunk in _chunks(reply_to(messages, kwargs), messages):
            if self.delay and chunk.message.content:
                await asyncio.sleep(self.delay)
            yield chunk


# --- What to reply ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. `tokens` joined are its text; a call or an analysis is one token, as no one reads along."""

    tokens: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def reply_to(messages: Sequence[BaseMessage], options: Mapping[str, Any]) -> Reply:
    """The reply, in one of three modes: an intent as JSON, native tool calls, or an answer."""
    conversation = Conversation(messages)
    plan = understand(conversation)
    schema = intent_schema(options)
    if schema is not None:
        return Reply((json.dumps(_intent(plan, conversation, offered_in(schema)), ensure_ascii=False),))
    if options.get("tools") and options.get("tool_choice") != "none":
        calls = _calls_now(plan, conversation, offered_as_tools(options["tools"]))
        if calls:
            return Reply((), _with_ids(calls, messages))
    return Reply(tuple(_TOKEN.findall(_answer(plan, conversation))))


def _intent(plan: Plan, conversation: Conversation, offered: Mapping[str, Schema]) -> dict[str, Any]:
    calls = _calls_now(plan, conversation, offered)
    kind = plan.kind
    if kind == "tool" and not calls and not conversation.results:
        kind = "chat"  # what it takes is not there
    elif conversation.results:
        kind = "tool"
    waits = plan.then is not None and not conversation.results and fitting("calculator", offered) is not None
    return {
        "kind": kind,
        "confidence": plan.confidence,
        "language": conversation.language,
        "tool_calls": [{"name": name, "args": args} for name, args in calls],
        "needs_more": bool(calls) and waits,
    }


def _calls_now(
    plan: Plan, conversation: Conversation, offered: Mapping[str, Schema]
) -> list[tuple[str, dict[str, Any]]]:
    """The calls to make at this point of the turn, to the tools there are, in the words of their schemas."""
    if conversation.results:
        following = next_call(plan, conversation.results)
        wanted = [following] if following else []
    else:
        wanted = list(plan.calls)
    return [fitted for call in wanted if (fitted := fit(call, offered))]


def _answer(plan: Plan, conversation: Conversation) -> str:
    asked = (*conversation.asked, conversation.question)
    if not conversation.results and plan.kind != "tool":
        return said(plan, conversation.language, name=recalled("name", asked))
    used = {result.kind for result in conversation.results}
    needed = dict.fromkeys(call.tool for call in plan.calls)
    if conversation.results and next_call(plan, conversation.results):
        needed["calculator"] = None
    return answer(plan, conversation, [tool for tool in needed if tool not in used])


# --- Messages and chunks ------------------------------------------------------------------------------------------


def _with_ids(calls: Sequence[tuple[str, dict[str, Any]]], messages: Sequence[BaseMessage]) -> tuple[ToolCall, ...]:
    """Ids that no other call of the conversation has, and that are the same if the same is asked again."""
    seed = f"{len(messages)}|{messages[-1].id if messages else ''}"
    return tuple(
        ToolCall(name=name, args=args, id=_id(f"{seed}|{index}|{name}|{json.dumps(args)}"), type="tool_call")
        for index, (name, args) in enumerate(calls)
    )


def _id(seed: str) -> str:
    return f"call_{blake2s(seed.encode(), digest_size=12).hexdigest()}"


def _usage(reply: Reply, messages: Sequence[BaseMessage]) -> UsageMetadata:
    spent = sum(_tokens(text_of(message)) for message in messages)
    made = _tokens(reply.text) + sum(_tokens(json.dumps(call["args"])) for call in reply.tool_calls)
    return UsageMetadata(input_tokens=spent, output_tokens=made, total_tokens=spent + made)


def _tokens(text: str) -> int:
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def _metadata(reply: Reply) -> dict[str, Any]:
    return {**_METADATA, "finish_reason": "tool_calls"} if reply.tool_calls else dict(_METADATA)


def _result(reply: Reply, messages: Sequence[BaseMessage]) -> ChatResult:
    message = AIMessage(
        content=reply.text,
        tool_calls=list(reply.tool_calls),
        usage_metadata=_usage(reply, messages),
        response_metadata=_metadata(reply),
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunks(reply: Reply, messages: Sequence[BaseMessage]) -> Iterator[ChatGenerationChunk]:
    for token in reply.tokens:
        yield ChatGenerationChunk(message=AIMessageChunk(content=token))
    for index, call in enumerate(reply.tool_calls):
        part = ToolCallChunk(
            name=call["name"], args=json.dumps(call["args"], ensure_ascii=False), id=call["id"], index=index
        )
        part["type"] = "tool_call_chunk"
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[part]))
    last = AIMessageChunk(
        content="",
        usage_metadata=_usage(reply, messages),
        response_metadata=_metadata(reply),
        chunk_position="last",
    )
    yield ChatGenerationChunk(message=last)
