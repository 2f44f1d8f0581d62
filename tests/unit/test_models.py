"""Models over real HTTP: choice of server, streaming, fallback, every fault of a server, usage and cost."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, SecretStr

from tests.stubs.model_server import (
    MALFORMED,
    Comment,
    End,
    ErrorEvent,
    Finish,
    ModelStub,
    Raw,
    Reply,
    ToolCall,
    answer,
    html,
    intent,
    overflow,
    rate_limited,
    refusal,
)
from threadline.domain.errors import ModelFault
from threadline.services.models import OPENAI_MODEL, OPENROUTER_MODEL, ModelConfig, Models, UsageMeter, open_models
from threadline.services.models.prices import price

INTENT = {"type": "json_schema", "json_schema": {"name": "intent", "schema": {"type": "object"}}}
SECRET = "sk-very-secret"


@pytest.fixture
async def stub() -> AsyncIterator[ModelStub]:
    async with ModelStub() as server:
        yield server


@pytest.fixture
async def opened() -> AsyncIterator[Any]:
    """A function that opens models and closes them when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_(stub: ModelStub, **config: Any) -> Models:
            defaults: dict[str, Any] = {"openai_base_url": stub.url, "retries": 0, "timeout": 5}
            return await stack.enter_async_context(open_models(ModelConfig(**{**defaults, **config})))

        yield open_


def router(stub: ModelStub, **config: Any) -> dict[str, Any]:
    return {"openrouter_api_key": SecretStr(SECRET), "openrouter_base_url": stub.url, "openai_base_url": None, **config}


async def fault(chat: BaseChatModel, **options: Any) -> tuple[ModelFault, str]:
    """The fault of one streamed call and the text that came before it."""
    said = []

    async def ask() -> None:
        async for chunk in chat.astream("hello", **options):
            said.append(str(chunk.content))

    with pytest.raises(ModelFault) as caught:
        await ask()
    return caught.value, "".join(said)


async def until(condition: Any, *, within: float = 5) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


# Which server, which model


async def test_an_answer_streams_token_by_token(stub: ModelStub, opened: Any) -> None:
    gate = asyncio.Event()
    stub.script(answer("Hel", gate, "lo"))
    models = await opened(stub)
    stream = models.chat.astream("hi")
    assert (await anext(stream)).content == "Hel"
    gate.set()
    assert "".join([str(chunk.content) async for chunk in stream]) == "lo"


async def test_openai_compatible_server_answers_with_the_first_model_it_lists(opened: Any) -> None:
    async with ModelStub(models=("nomic-embed-text", "llama-3", "qwen")) as stub:
        models = await opened(stub)
        assert models.provider == "openai"
        assert stub.listings == 0
        await asyncio.gather(*(models.chat.ainvoke("hi") for _ in range(10)))
        assert {call.body["model"] for call in stub.calls} == {"llama-3"}
        assert stub.listings == 1


async def test_a_failed_listing_is_tried_again(opened: Any) -> None:
    async with ModelStub(models=()) as stub:
        models = await opened(stub)
        assert (await fault(models.chat))[0].kind == "model_refused"
        stub.models = ("late",)
        await models.chat.ainvoke("hi")
        assert stub.calls[-1].body["model"] == "late"


async def test_openrouter_wins_and_has_a_stated_default(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, **router(stub, openai_api_key=SecretStr("other"), openai_base_url="http://127.0.0.1:9"))
    await models.chat.ainvoke("hi")
    assert models.provider == "openrouter"
    assert stub.calls[0].body["model"] == OPENROUTER_MODEL
    assert stub.calls[0].body["usage"] == {"include": True}
    assert stub.calls[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_openai_itself_has_a_stated_default() -> None:
    async with open_models(ModelConfig(openai_api_key=SecretStr(SECRET))) as models:
        assert models.names == (OPENAI_MODEL,)


async def test_what_is_configured_reaches_the_server(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="big", analysis_model="small", temperature=0.25)
    await models.chat.ainvoke("hi")
    await models.analysis.ainvoke("hi")
    assert [call.body["model"] for call in stub.calls] == ["big", "small"]
    assert [call.body["temperature"] for call in stub.calls] == [0.25, 0.25]
    assert "usage" not in stub.calls[0].body
    assert stub.calls[0].body["stream_options"] == {"include_usage": True}


async def test_one_object_does_both_unless_another_model_analyses(stub: ModelStub, opened: Any) -> None:
    assert (same := await opened(stub, model="big")).chat is same.analysis
    assert (same := await opened(stub, model="big", analysis_model="big")).chat is same.analysis
    assert (other := await opened(stub, model="big", analysis_model="small")).chat is not other.analysis


async def test_nothing_in_the_environment_is_read(
    stub: ModelStub, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_PROXY", "OPENAI_BASE_URL", "LANGSMITH_GATEWAY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
    models = await opened(stub, model="m")
    await models.chat.ainvoke("hi")
    assert stub.calls[0].headers["authorization"] == "Bearer none"


async def test_opening_and_asking_never_block_the_loop(stub: ModelStub) -> None:
    # `langgraph dev` refuses blocking calls inside its loop. A process of its own, since imports block only once.
    pytest.importorskip("blockbuster")
    script = f"""
import asyncio
from blockbuster import blockbuster_ctx
from threadline.services.models import ModelConfig, open_models

async def main():
    with blockbuster_ctx():
        async with open_models(ModelConfig(openai_base_url={stub.url!r})) as models:
            print((await models.chat.ainvoke("hi")).content)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()
    assert said.startswith(b"word0"), errors.decode()


def test_opening_needs_no_event_loop_and_each_loop_has_its_own() -> None:
    async def ask() -> str:
        async with ModelStub(tokens=1) as stub, open_models(ModelConfig(openai_base_url=stub.url)) as models:
            return str((await models.chat.ainvoke("hi")).content)

    open_models(ModelConfig(openai_base_url="http://127.0.0.1:9/v1"))
    assert [asyncio.run(ask()) for _ in range(3)] == ["word0 "] * 3


async def test_a_thread_without_a_loop_may_ask_too(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    assert (await asyncio.to_thread(models.chat.invoke, "use nothing")).content.startswith("word0 word1")
    assert (await models.chat.ainvoke("and the loop's own connections still work")).content.startswith("word0")


async def test_keys_stay_out_of_sight(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, **router(stub))
    assert SECRET not in f"{models!r} {models.chat!r} {models.chat.asdict()} {models.server!r} {ModelConfig()!r}"


# The doctor's question


async def test_check_names_what_will_be_asked(opened: Any) -> None:
    async with ModelStub(models=("a", "b")) as stub:
        models = await opened(stub, analysis_model="b", fallback_models=("c",))
        check = await models.check()
        assert (check.models, check.unlisted) == (("a", "c", "b"), ("c",))


@pytest.mark.parametrize("provider", ["openrouter", "openai"])
async def test_check_finds_a_wrong_key(opened: Any, provider: str) -> None:
    async with ModelStub(key="right") as stub:
        config = router(stub) if provider == "openrouter" else {"openai_api_key": SecretStr(SECRET)}
        models = await opened(stub, **config)
        with pytest.raises(ModelFault, match="refused the key") as caught:
            await models.check()
        assert caught.value.kind == "model_refused"


async def test_check_finds_a_dead_server(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, openai_base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ModelFault) as caught:
        await models.check()
    assert caught.value.kind == "model_unreachable"


# LangChain and LangGraph around it


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.starts = self.ends = self.errors = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.starts += 1

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(token)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends += 1

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.errors += 1


def graph_of(chat: BaseChatModel) -> Any:
    async def respond(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("respond", respond)
    graph.add_edge(START, "respond")
    graph.add_edge("respond", END)
    return graph.compile()


async def test_a_graph_streams_every_token_once(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("one ", "two ", "three"))
    models = await opened(stub, model="m")
    tokens = Tokens()
    parts = graph_of(models.chat).astream(
        {"messages": [HumanMessage("hi")]}, {"callbacks": [tokens]}, stream_mode=["messages", "values"]
    )
    seen, ids, last = [], set(), {}
    async for mode, part in parts:
        if mode == "values":
            last = part
        else:
            seen.append(part[0].content)
            ids.add(part[0].id)
    assert [text for text in seen if text] == ["one ", "two ", "three"]
    assert [text for text in tokens.seen if text] == ["one ", "two ", "three"]
    assert (tokens.starts, tokens.ends, tokens.errors) == (1, 1, 0)
    assert last["messages"][-1].content == "one two three"
    assert ids == {last["messages"][-1].id}


async def test_a_fallback_is_one_call_to_langchain(stub: ModelStub, opened: Any) -> None:
    stub.script(refusal(503), model="a")
    stub.script(answer("from b"), model="b")
    models = await opened(stub, model="a", fallback_models=("b",))
    tokens = Tokens()
    seen = [
        message.content
        async for message, _ in graph_of(models.chat).astream(
            {"messages": [HumanMessage("hi")]}, {"callbacks": [tokens]}, stream_mode="messages"
        )
    ]
    assert "".join(seen) == "".join(tokens.seen) == "from b"
    assert (tokens.starts, tokens.ends, tokens.errors) == (1, 1, 0)


async def test_a_call_nobody_streams_reports_no_tokens(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    tokens = Tokens()
    await models.chat.ainvoke("hi", {"callbacks": [tokens]})
    assert tokens.seen == []
    assert (tokens.starts, tokens.ends, tokens.errors) == (1, 1, 0)


async def test_events_hold_every_token_once(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("one ", "two"), answer("one ", "two"))
    models = await opened(stub, model="m")
    events = [event async for event in models.chat.astream_events("hi", version="v2")]
    said = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert [text for text in said if text] == ["one ", "two"]
    tokens = Tokens()
    stream = await models.chat.astream_events("hi", {"callbacks": [tokens]}, version="v3")
    assert [text async for text in stream.text] == ["one ", "two"]
    assert tokens.seen == []


async def test_what_a_server_repeats_does_not_add_up(stub: ModelStub, opened: Any) -> None:
    def running(text: str, so_far: int, finish: str | None = None) -> Raw:
        chunk = {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m-2026",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 7, "completion_tokens": so_far, "total_tokens": 7 + so_far},
        }
        return Raw(f"data: {json.dumps(chunk)}\n\n".encode())

    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    stub.script(answer(running("a", 1), running("b", 2, "stop"), usage=usage, model="m-2026"))
    models = await opened(stub, model="m")
    reply = await models.chat.ainvoke("hi")
    assert reply.content == "ab"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.response_metadata["model_name"] == "m-2026"
    assert reply.usage_metadata["total_tokens"] == 9


async def test_response_format_reaches_the_server_and_streams(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    stub.script(intent("tool", ToolCall("calculator", {"expression": "(15+27)*3"})))
    reply = await models.analysis.ainvoke("hi", response_format=INTENT)
    assert json.loads(reply.content)["tool_calls"][0]["args"] == {"expression": "(15+27)*3"}
    assert stub.calls[0].body["response_format"] == INTENT
    bound = await models.analysis.bind(response_format=INTENT).ainvoke("안녕")
    assert json.loads(bound.content)["language"] == "ko"


async def test_response_format_is_dropped_for_a_model_that_refuses_it(opened: Any) -> None:
    async with ModelStub(formats=False) as stub:
        models = await opened(stub, model="m")
        for _ in range(2):
            assert (await models.chat.ainvoke("hi", response_format=INTENT)).content.startswith("word0")
        assert ["response_format" in call.body for call in stub.calls] == [True, False, False]


async def test_a_400_for_another_reason_does_not_cost_the_format(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    stub.script(refusal(400), refusal(400))
    assert (await fault(models.chat, response_format=INTENT))[0].kind == "model_invalid"
    await models.chat.ainvoke("hi", response_format=INTENT)
    assert "response_format" in stub.calls[-1].body


async def test_an_overflow_is_not_taken_for_a_refused_format(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    stub.script(overflow())
    assert (await fault(models.chat, response_format=INTENT))[0].kind == "context_overflow"
    assert len(stub.calls) == 1


@tool
def calculator(expression: str) -> str:
    """Work out an expression."""
    return expression


async def test_tools_are_bound_and_called(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="m")
    calls = [ToolCall("calculator", {"expression": "1+1"}, "c1"), ToolCall("calculator", {"expression": "서울"}, "c2")]
    stub.script(answer(*calls))
    reply = await models.chat.bind_tools([calculator], tool_choice="calculator").ainvoke("hi")
    assert [(call["id"], call["args"]) for call in reply.tool_calls] == [
        ("c1", {"expression": "1+1"}),
        ("c2", {"expression": "서울"}),
    ]
    body = stub.calls[0].body
    assert body["tools"][0]["function"]["name"] == "calculator"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "calculator"}}
    by_default = models.chat.bind_tools([calculator], tool_choice="any")
    assert (await by_default.ainvoke('use calculator {"expression": "2"}')).tool_calls[0]["args"] == {"expression": "2"}
    assert stub.calls[1].body["tool_choice"] == "required"


async def test_structured_output_works(stub: ModelStub, opened: Any) -> None:
    class Verdict(BaseModel):
        """A verdict."""

        ok: bool

    models = await opened(stub, model="m")
    stub.script(answer(ToolCall("Verdict", {"ok": True})))
    assert await models.chat.with_structured_output(Verdict).ainvoke("hi") == Verdict(ok=True)


# Faults


@pytest.mark.parametrize(
    ("reply", "kind", "retryable"),
    [
        (refusal(401, f"Incorrect API key provided: {SECRET}"), "model_refused", False),
        (refusal(402, SECRET), "model_refused", False),
        (refusal(403, SECRET), "model_refused", False),
        (refusal(404, SECRET), "model_refused", False),
        (refusal(400, SECRET), "model_invalid", False),
        (refusal(422, SECRET), "model_invalid", False),
        (refusal(429, SECRET), "model_overloaded", True),
        (refusal(500, SECRET), "model_unreachable", True),
        (refusal(503, SECRET), "model_overloaded", True),
        (refusal(504, SECRET), "model_timeout", True),
        (html(502), "model_unreachable", True),
        (overflow("openai"), "context_overflow", False),
        (overflow("llama.cpp"), "context_overflow", False),
        (overflow("openrouter"), "context_overflow", False),
        (answer(End.CLOSE), "model_stream_broken", True),
        (answer(End.CUT), "model_unreachable", True),
        (answer(End.RESET), "model_unreachable", True),
        (answer(ErrorEvent(429, SECRET)), "model_overloaded", True),
        (answer(ErrorEvent(502, SECRET, openrouter=True)), "model_unreachable", True),
        (answer(ErrorEvent("rate_limit_exceeded", SECRET)), "model_overloaded", True),
        (answer(ErrorEvent("server_error", SECRET)), "model_stream_broken", True),
        (answer(ErrorEvent("context_length_exceeded", SECRET)), "context_overflow", False),
        (answer(Finish("error")), "model_stream_broken", True),
        (answer(MALFORMED), "model_stream_broken", True),
        (answer(Raw(b"data: []\n\n")), "model_stream_broken", True),
        (answer(Raw(b'data: "what"\n\n')), "model_stream_broken", True),
        (Reply(parts=(Raw(b"<html>a web page</html>"), End.CLOSE)), "model_stream_broken", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_fault_before_any_text(stub: ModelStub, opened: Any, reply: Reply, kind: str, retryable: bool) -> None:
    stub.script(reply)
    models = await opened(stub, **router(stub, model="m"))
    raised, text = await fault(models.chat)
    assert (raised.kind, raised.retryable, text) == (kind, retryable, "")
    assert SECRET not in raised.message
    assert "the model m" in raised.message.lower()


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ((End.CLOSE,), "model_stream_broken"),
        ((End.CUT,), "model_stream_broken"),
        ((End.RESET,), "model_stream_broken"),
        ((ErrorEvent(502, SECRET),), "model_stream_broken"),
        ((ErrorEvent(429, SECRET, openrouter=True),), "model_stream_broken"),
        ((Finish("error"),), "model_stream_broken"),
        ((MALFORMED,), "model_stream_broken"),
        ((End.STALL,), "model_timeout"),
    ],
)
async def test_a_fault_after_some_text_is_raised_and_nothing_is_started_over(
    stub: ModelStub, opened: Any, parts: tuple[Any, ...], kind: str
) -> None:
    stub.script(answer("partial ", "text", *parts))
    models = await opened(stub, model="m", fallback_models=("spare",), retries=2, timeout=0.3)
    raised, text = await fault(models.chat)
    assert (raised.kind, raised.retryable, text) == (kind, True, "partial text")
    assert SECRET not in raised.message
    assert len(stub.calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        refusal(503),
        refusal(401),
        refusal(404),
        html(502),
        overflow(),
        answer(End.CLOSE),
        answer(End.RESET),
        answer(ErrorEvent(502, openrouter=True)),
        answer(End.STALL),
        answer(MALFORMED),
    ],
)
async def test_the_next_model_stands_in(stub: ModelStub, opened: Any, reply: Reply) -> None:
    stub.script(reply, model="a")
    stub.script(answer("fine"), model="b")
    models = await opened(stub, model="a", fallback_models=("b",), timeout=0.3)
    answered = await models.chat.ainvoke("hi")
    assert (answered.content, answered.response_metadata["model_name"]) == ("fine", "b")


async def test_when_all_fail_the_first_fault_is_raised_and_all_are_named(stub: ModelStub, opened: Any) -> None:
    stub.script(refusal(503), model="a")
    stub.script(refusal(404), model="b")
    models = await opened(stub, model="a", fallback_models=("b",))
    raised, _ = await fault(models.chat)
    assert raised.kind == "model_overloaded"
    assert raised.message == "The model a is overloaded (HTTP 503). The model b is not known to the server (HTTP 404)."


async def test_when_all_fail_an_overflow_is_what_the_caller_hears(stub: ModelStub, opened: Any) -> None:
    stub.script(refusal(503), model="a")
    stub.script(overflow("llama.cpp"), model="b")
    models = await opened(stub, model="a", fallback_models=("b",))
    assert (await fault(models.chat))[0].kind == "context_overflow"


async def test_429_is_waited_out(stub: ModelStub, opened: Any) -> None:
    stub.script(rate_limited(0.4), answer("at last"))
    models = await opened(stub, model="m", retries=2)
    assert (await models.chat.ainvoke("hi")).content == "at last"
    first, second = stub.calls
    assert second.at - first.at >= 0.4


async def test_retries_end(stub: ModelStub, opened: Any) -> None:
    stub.script(*[rate_limited(0.01)] * 5)
    models = await opened(stub, model="m", retries=2)
    assert (await fault(models.chat))[0].kind == "model_overloaded"
    assert len(stub.calls) == 3


async def test_a_server_that_is_not_there(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, openai_base_url="http://user:pw@127.0.0.1:9/v1", model="m")
    raised, _ = await fault(models.chat)
    assert raised.kind == "model_unreachable"
    assert "127.0.0.1" not in raised.message
    assert "pw" not in raised.message


async def test_a_stall_is_a_timeout(stub: ModelStub, opened: Any) -> None:
    stub.script(answer(End.STALL))
    models = await opened(stub, model="m", timeout=0.3)
    assert (await fault(models.chat))[0].kind == "model_timeout"
    await asyncio.wait_for(stub.calls[0].disconnected.wait(), 5)


async def test_comments_are_no_text_and_keep_the_call_alive(stub: ModelStub, opened: Any) -> None:
    waiting: list[Any] = [part for _ in range(4) for part in (Comment(), 0.15)]
    stub.script(answer(*waiting, "hello"))
    models = await opened(stub, model="m", timeout=0.4)
    assert [chunk.content async for chunk in models.chat.astream("hi") if chunk.content] == ["hello"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"expression": "1+', "length"),  # LangChain would mend this into a call
        ('{"expression": "1+', "tool_calls"),
        ('{"expression": "1+1"}', "length"),
        ("[1, 2]", "tool_calls"),
        ('{"expression": "1+1"}', "content_filter"),
    ],
)
async def test_a_half_written_tool_call_never_comes_out(
    stub: ModelStub, opened: Any, arguments: str, reason: str
) -> None:
    stub.script(answer(ToolCall("calculator", arguments), Finish(reason)), model="m")
    models = await opened(stub, model="m")
    with pytest.raises(ModelFault) as caught:
        await models.chat.bind_tools([calculator]).ainvoke("hi")
    assert caught.value.kind == "model_stream_broken"


async def test_a_tool_call_without_arguments_is_whole(stub: ModelStub, opened: Any) -> None:
    stub.script(answer(ToolCall("now", "")))
    models = await opened(stub, model="m")
    assert (await models.chat.ainvoke("hi")).tool_calls[0]["args"] == {}


async def test_text_cut_off_by_its_length_is_an_answer(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("so far", Finish("length")))
    models = await opened(stub, model="m")
    reply = await models.chat.ainvoke("hi")
    assert (reply.content, reply.response_metadata["finish_reason"]) == ("so far", "length")


# Cancelling and load


@pytest.mark.parametrize("parts", [("partial",), ()])
async def test_a_cancelled_task_hangs_up(stub: ModelStub, opened: Any, parts: tuple[str, ...]) -> None:
    stub.script(answer(*parts, End.STALL))
    models = await opened(stub, model="m", retries=2)
    task = asyncio.create_task(models.chat.ainvoke("hi"))
    (call,) = await stub.received(1)
    await until(lambda: call.sent == len(parts))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(call.disconnected.wait(), 2)
    assert len(stub.calls) == 1


async def test_a_cancelled_graph_hangs_up(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("partial", End.STALL))
    models = await opened(stub, model="m")
    first = asyncio.Event()

    async def run() -> None:
        async for message, _ in graph_of(models.chat).astream({"messages": [("user", "hi")]}, stream_mode="messages"):
            if message.content == "partial":
                first.set()

    task = asyncio.create_task(run())
    await asyncio.wait_for(first.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(stub.calls[0].disconnected.wait(), 2)


async def test_a_reader_that_leaves_hangs_up(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("partial", End.STALL))
    models = await opened(stub, model="m")
    stream = models.chat.astream("hi")
    await anext(stream)
    await stream.aclose()
    del stream
    gc.collect()
    await asyncio.wait_for(stub.calls[0].disconnected.wait(), 2)


async def test_a_hundred_streams_at_once(stub: ModelStub, opened: Any) -> None:
    gate = asyncio.Event()
    stub.reply = lambda call: answer("a", gate, "b", str(call.last_message["content"]))
    models = await opened(stub, model="m")
    tasks = [asyncio.create_task(models.chat.ainvoke(str(n))) for n in range(100)]
    await stub.received(100, within=30)
    gate.set()
    assert [reply.content for reply in await asyncio.gather(*tasks)] == [f"ab{n}" for n in range(100)]
    assert stub.most_open == 100


async def test_closing_closes_the_connections(stub: ModelStub) -> None:
    models = open_models(ModelConfig(openai_base_url=stub.url))
    await models.chat.ainvoke("hi")
    assert stub.connections == 1
    await models.aclose()
    await until(lambda: stub.connections == 0)


async def test_connections_are_used_again(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="a", analysis_model="b", fallback_models=("c",))
    for _ in range(5):
        await models.chat.ainvoke("hi")
        await models.analysis.ainvoke("hi")
    assert stub.connections == 1


# Usage and cost


async def test_the_meter_adds_up_what_the_provider_says(stub: ModelStub, opened: Any) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    stub.script(answer("a", usage=usage, cost=0.25), answer("b", usage=usage, cost=0.5), answer("c", cost=0.0))
    models = await opened(stub, **router(stub, model="x/big", analysis_model="x/small"))
    meter = UsageMeter()
    config = {"callbacks": [meter]}
    await models.analysis.ainvoke("one two", config)
    await graph_of(models.chat).ainvoke({"messages": [("user", "hi")]}, config)
    async for _ in models.chat.astream("one two three", config):
        pass
    assert meter.usage() == {"input_tokens": 23, "output_tokens": 11, "total_tokens": 34, "model_calls": 3}
    assert meter.cost == 0.75
    assert meter.model == "x/big"
    assert meter.models["x/small"] == {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "model_calls": 1,
        "cost": 0.25,
    }


async def test_a_meter_that_saw_nothing() -> None:
    meter = UsageMeter()
    assert meter.usage() == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "model_calls": 0}
    assert (meter.cost, meter.model) == (0.0, None)


async def test_a_local_server_costs_nobody_knows_what_even_under_a_famous_name(stub: ModelStub, opened: Any) -> None:
    models = await opened(stub, model="gpt-4o-mini")
    meter = UsageMeter()
    await models.chat.ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost is None
    assert meter.usage()["model_calls"] == 1


async def test_one_unknown_makes_the_sum_unknown(stub: ModelStub, opened: Any) -> None:
    stub.script(answer("a", cost=0.25), answer("b"))
    models = await opened(stub, **router(stub, model="no/such-model"))
    meter = UsageMeter()
    await models.chat.ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost == 0.25
    await models.chat.ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost is None
    assert meter.usage()["input_tokens"] == 2


async def test_a_call_that_broke_off_counts_as_unknown_and_a_refused_one_not_at_all(
    stub: ModelStub, opened: Any
) -> None:
    stub.script(refusal(429), answer("a", cost=0.25), answer("partial", End.RESET))
    models = await opened(stub, **router(stub, model="m"))
    meter = UsageMeter()
    with pytest.raises(ModelFault):
        await models.chat.ainvoke("hi", {"callbacks": [meter]})
    await models.chat.ainvoke("hi", {"callbacks": [meter]})
    assert (meter.cost, meter.usage()["model_calls"]) == (0.25, 1)
    with pytest.raises(ModelFault):
        await models.chat.ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost is None
    assert meter.usage() == {"input_tokens": None, "output_tokens": None, "total_tokens": None, "model_calls": 2}


async def test_a_stranger_s_model_is_metered_too() -> None:
    told = AIMessage(
        "hi",
        usage_metadata={"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000},
        response_metadata={"model_name": "gpt-4o-mini", "model_provider": "openai"},
    )
    meter = UsageMeter()
    await GenericFakeChatModel(messages=iter([told])).ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost == pytest.approx(0.15)
    await GenericFakeChatModel(messages=iter([AIMessage("hi")])).ainvoke("hi", {"callbacks": [meter]})
    assert meter.cost is None
    assert meter.usage()["input_tokens"] is None


def test_the_meter_counts_from_many_threads() -> None:
    meter = UsageMeter()
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    message = AIMessage("x", usage_metadata=usage, response_metadata={"model_name": "m", "cost": 1.0})
    result = LLMResult(generations=[[ChatGeneration(message=message)]])

    def count() -> None:
        for _ in range(500):
            meter.on_llm_end(result)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.cost == 4000
    assert meter.usage() == {"input_tokens": 4000, "output_tokens": 8000, "total_tokens": 12000, "model_calls": 4000}


def test_prices_come_from_the_table() -> None:
    usage: Any = {
        "input_tokens": 1_000_000,
        "output_tokens": 1_000_000,
        "total_tokens": 2_000_000,
        "input_token_details": {"cache_read": 1_000_000},
    }
    assert price(usage, "gpt-4o-mini", provider="openai") == pytest.approx(0.075 + 0.6)
    assert price(usage, "openai/gpt-4o-mini", api_url="https://openrouter.ai/api/v1") == pytest.approx(0.075 + 0.6)
    assert price(usage, "no-such-model", provider="openai") is None
    assert price(usage, "gpt-4o-mini", provider="no-such-provider") is None
    assert price(usage, "gpt-4o-mini") is None
    assert price(None, "gpt-4o-mini", provider="openai") is None


async def test_without_a_key_the_offline_model_answers_for_nothing() -> None:
    async with open_models(ModelConfig()) as models:
        assert models.provider == "offline"
        assert models.chat is models.analysis
        meter = UsageMeter()
        assert (await models.chat.ainvoke("hello", {"callbacks": [meter]})).content
        assert (meter.cost, meter.model) == (0.0, "threadline-offline")
        assert (await models.check()).models == ("threadline-offline",)


# The stub, alone


def test_the_stub_runs_alone() -> None:
    command = [sys.executable, "-m", "tests.stubs.model_server", "--tokens", "3", "--model", "solo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/models") as response:
            assert json.load(response)["data"][0]["id"] == "solo"
        body = json.dumps({"model": "solo", "messages": [{"role": "user", "content": "hi"}]}).encode()
        with urllib.request.urlopen(f"{url}/chat/completions", body) as response:
            assert json.load(response)["choices"][0]["message"]["content"] == "word0 word1 word2 "
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
