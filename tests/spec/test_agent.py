"""The built-in agent: it finds out what is asked, calls tools, and answers in the asker's language."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conftest import Start
from tests.service import Client, Frame, said
from tests.stubs.model_server import Call, ModelStub, Reply, ToolCall, answer, intent, overflow, refusal
from tests.stubs.web_services import WebServices, web_services

SUM = ToolCall("calculator", {"expression": "(15+27)*3"})


@pytest.fixture
async def web() -> AsyncIterator[WebServices]:
    async with web_services() as stub:
        yield stub


@pytest.fixture
async def offline(start: Start, web: WebServices) -> AsyncIterator[Client]:
    """The service with the offline model and stubs of the web services its tools ask."""
    async with start(**web.urls()) as client:
        yield client


def nodes(frames: list[Frame]) -> list[str]:
    """The nodes that finished, in order."""
    return [f.data["node"] for f in frames if f.event == "node" and f.data["status"] == "finished"]


def tools(frames: list[Frame], *status: str) -> list[dict[str, Any]]:
    return [f.data for f in frames if f.event == "tool" and f.data["status"] in (status or ("finished", "failed"))]


def the(frames: list[Frame], event: str) -> dict[str, Any]:
    (frame,) = [frame for frame in frames if frame.event == event]
    return frame.data


def content(frames: list[Frame]) -> str:
    assert frames[-1].event == "done", frames[-1]
    return str(the(frames, "message")["content"])


def roles(call: Call) -> list[str]:
    """The roles of a request's messages after the system prompt; an assistant message with tool calls is a `call`."""
    system, *rest = call.body["messages"]
    assert system["role"] == "system"
    return ["call" if message.get("tool_calls") else message["role"] for message in rest]


def sound(call: Call) -> bool:
    """Whether every tool result in a request follows the call it answers, and every call is answered at once."""
    open_ids: list[str] = []
    for message in call.body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_ids:
                return False
            open_ids.remove(message["tool_call_id"])
        elif open_ids:
            return False
        open_ids += [made["id"] for made in message.get("tool_calls") or ()]
    return not open_ids


# What it does


async def test_the_weather(offline: Client) -> None:
    frames = await offline.chat("What's the weather in Seoul?")

    assert nodes(frames) == ["analyze_intent", "execute_tools", "respond"]
    (planned,) = the(frames, "intent")["tool_calls"]
    assert (planned["name"], planned["args"]["place"]) == ("weather", "Seoul")
    (told,) = tools(frames)
    assert (told["result"]["place"], told["result"]["temperature_c"]) == ("Seoul", 7.3)
    assert "7.3" in content(frames)
    assert "clear sky" in content(frames)


async def test_two_requests_in_one_korean_message(offline: Client) -> None:
    frames = await offline.chat("서울 날씨 알려주고 (15+27)*3도 계산해줘")

    assert the(frames, "intent")["language"] == "ko"
    assert sorted(told["name"] for told in tools(frames)) == ["calculator", "weather"]
    assert "7.3" in content(frames)
    assert "126" in content(frames)
    assert any("가" <= letter <= "힣" for letter in content(frames))


@pytest.mark.parametrize(
    ("question", "korean"), [("What is 6*7?", False), ("6*7은 얼마야?", True), ("hello", False), ("안녕", True)]
)
async def test_it_answers_in_the_language_of_the_question(service: Client, question: str, korean: bool) -> None:
    answered = content(await service.chat(question))

    assert any("가" <= letter <= "힣" for letter in answered) == korean


async def test_a_follow_up_continues_the_request_before_it(offline: Client) -> None:
    session_id = (await offline.chat("What's the weather in Seoul?"))[0].data["session_id"]

    frames = await offline.chat("and in Busan?", session_id)

    assert [told["args"]["place"] for told in tools(frames)] == ["Busan"]
    assert "Busan" in content(frames)


async def test_a_call_that_depends_on_another_s_result(offline: Client) -> None:
    frames = await offline.chat("Add 10 to the temperature in Seoul")

    assert nodes(frames) == ["analyze_intent", "execute_tools", "analyze_intent", "execute_tools", "respond"]
    assert "17.3" in content(frames)


async def test_the_second_of_two_identical_calls_is_not_made(offline: Client, web: WebServices) -> None:
    first = tools(await offline.chat("What's the weather in Seoul?"))
    asked = len(web.calls)
    second = tools(await offline.chat("What's the weather in Seoul?"))

    assert [told["cached"] for told in first + second] == [False, True]
    assert first[0]["result"] == second[0]["result"]
    assert len(web.calls) == asked


async def test_without_tools_it_answers_at_once(scripted: Client, model: ModelStub) -> None:
    model.script(intent("greeting"), answer("Hello!"))

    frames = await scripted.chat("hi")

    assert nodes(frames) == ["analyze_intent", "respond"]
    assert content(frames) == "Hello!"
    assert "greeting" in model.calls[1].body["messages"][0]["content"]


async def test_analysis_and_answer_may_be_two_models_work(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="big", analysis_model="small") as service:
        await service.chat("hi")

    assert [(call.body["model"], call.wants_intent) for call in model.calls] == [("small", True), ("big", False)]


# The analysis


def fenced(document: dict[str, Any]) -> Reply:
    return answer(f"Here you are:\n```json\n{json.dumps(document)}\n```\n")


CHAT = {"kind": "chat", "confidence": 0.8, "language": "en", "tool_calls": [], "needs_more": False}


async def test_json_in_a_code_fence_is_accepted(scripted: Client, model: ModelStub) -> None:
    model.script(fenced(CHAT), answer("fine"))

    frames = await scripted.chat("hi")

    assert (the(frames, "intent")["kind"], content(frames), len(model.calls)) == ("chat", "fine", 2)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer("It is a greeting, I think."), "Invalid JSON"),
        (answer(json.dumps({**CHAT, "kind": "music"})), "kind: Input should be"),
        (answer(json.dumps({**CHAT, "confidence": "very"})), "confidence: Input should be"),
        (answer(""), "Invalid JSON"),
    ],
)
async def test_an_invalid_analysis_is_asked_for_once_more_with_the_reason(
    scripted: Client, model: ModelStub, reply: Reply, reason: str
) -> None:
    model.script(reply, intent("tool", SUM), answer("126"))

    frames = await scripted.chat("(15+27)*3")

    assert content(frames) == "126"
    assert [told["result"]["result"] for told in tools(frames)] == ["126"]
    again = model.calls[1]
    assert again.wants_intent
    assert roles(again) == ["user", "assistant", "user"]
    assert all(message["content"] for message in again.body["messages"])
    assert reason in again.last_message["content"]


async def test_after_a_second_invalid_analysis_it_answers_all_the_same(scripted: Client, model: ModelStub) -> None:
    model.script(answer("{}"), answer("no idea"), answer("Well."))

    frames = await scripted.chat("hi")

    assert nodes(frames) == ["analyze_intent", "respond"]
    assert (the(frames, "intent")["kind"], the(frames, "intent")["confidence"]) == ("unknown", 0)
    assert content(frames) == "Well."
    assert len(model.calls) == 3


async def test_the_reader_never_sees_the_analysis(scripted: Client, model: ModelStub) -> None:
    model.script(answer("no ", "JSON"), intent(), answer("a", "b"))

    frames = await scripted.chat("hi")

    assert [frame.data["text"] for frame in frames if frame.event == "token"] == ["a", "b"]


# The loop


async def test_a_model_that_always_wants_more_is_stopped_after_eight_rounds(scripted: Client, model: ModelStub) -> None:
    def reply(call: Call) -> Reply:
        if not call.wants_intent:
            return answer("enough")
        return intent("tool", ToolCall("calculator", {"expression": f"{len(model.calls)}+1"}), needs_more=True)

    model.reply = reply
    frames = await scripted.chat("count for ever")

    assert nodes(frames) == ["analyze_intent", "execute_tools"] * 8 + ["respond"]
    assert len(tools(frames)) == 8
    assert content(frames) == "enough"
    assert all(sound(call) for call in model.calls)


async def test_the_same_call_is_never_made_twice(scripted: Client, model: ModelStub) -> None:
    other = ToolCall("calculator", {"expression": "1+1"})
    model.script(
        intent("tool", SUM, SUM, needs_more=True),
        intent("tool", SUM, other, needs_more=True),
        intent("tool", SUM, other),
    )
    model.script(answer("done"))

    frames = await scripted.chat("again and again")

    assert [told["args"]["expression"] for told in tools(frames)] == ["(15+27)*3", "1+1"]
    assert nodes(frames) == ["analyze_intent", "execute_tools"] * 2 + ["analyze_intent", "respond"]
    planned = [frame.data["tool_calls"] for frame in frames if frame.event == "intent"]
    assert [len(calls) for calls in planned] == [1, 1, 0]


# Tools


async def test_calls_of_one_step_run_side_by_side(start: Start, model: ModelStub, web: WebServices) -> None:
    model.script(intent("tool", ToolCall("weather", {"place": "Seoul"}), ToolCall("search", {"query": "Redis"})))
    model.script(answer("done"))
    web.faults.update(geocoding="hang", wikipedia="hang")
    async with start(openai_base_url=model.url, model="stub", **web.urls()) as service:
        turn = asyncio.create_task(service.chat("both"))
        async with asyncio.timeout(10):
            while not (web.asked("geocoding") and web.asked("wikipedia")):
                web.arrived.clear()
                await web.arrived.wait()
        web.hold.set()  # neither had an answer when the other was asked
        frames = await turn

    assert [told["status"] for told in tools(frames, "started", "finished", "failed")][:2] == ["started", "started"]
    assert content(frames) == "done"


async def test_a_tool_that_hangs_is_given_up_and_the_others_are_not_held_up(
    start: Start, model: ModelStub, web: WebServices
) -> None:
    model.script(intent("tool", ToolCall("weather", {"place": "Seoul"}), SUM), answer("126, but no weather"))
    web.faults["weather"] = "hang"
    async with start(openai_base_url=model.url, model="stub", tool_timeout=0.6, **web.urls()) as service:
        frames = await service.chat("weather and a sum")

    told = {told["name"]: told for told in tools(frames)}
    assert (told["weather"]["status"], told["weather"]["error"]) == (
        "failed",
        "the weather service did not answer in time",
    )
    assert told["calculator"]["result"]["result"] == "126"
    assert told["weather"]["ms"] < 2_000
    assert [t["name"] for t in tools(frames)] == ["calculator", "weather"]
    assert content(frames) == "126, but no weather"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (ToolCall("calculator", {"expression": "1/0"}), "zero"),
        (ToolCall("calculator", {"sum": "1+1"}), "there is no argument 'sum'"),
        (ToolCall("teleport", {"to": "Seoul"}), "there is no tool called teleport"),
        (ToolCall("weather", {"place": "Seoul"}), "could not be reached"),
    ],
)
async def test_a_failed_tool_is_data_for_the_model(
    scripted: Client, model: ModelStub, call: ToolCall, words: str
) -> None:
    model.script(intent("tool", call), answer("That did not work."))

    frames = await scripted.chat("please")

    (told,) = tools(frames)
    assert (told["status"], told["cached"]) == ("failed", False)
    assert words in told["error"]
    assert nodes(frames) == ["analyze_intent", "execute_tools", "respond"]
    assert roles(model.calls[-1]) == ["user", "call", "tool"]
    assert model.calls[-1].last_message["content"] == told["error"]
    assert content(frames) == "That did not work."


async def test_an_unreachable_service_is_named_in_the_answer(service: Client) -> None:
    frames = await service.chat("What's the weather in Seoul?")

    assert tools(frames)[0]["error"] == "the weather service could not be reached"
    assert "could not be reached" in content(frames)


async def test_the_history_names_the_tools_used(offline: Client) -> None:
    session_id = (await offline.chat("서울 날씨 알려주고 (15+27)*3도 계산해줘"))[0].data["session_id"]

    (row,) = (await offline.json(f"/sessions/{session_id}/history"))["items"]
    assert sorted(row["tools_used"]) == ["calculator", "weather"]


# What the model is shown


async def talk(service: Client, count: int, *, session_id: str | None = None) -> str:
    for number in range(count):
        session_id = (await service.chat(f'use calculator {{"expression": "{number}+1"}}', session_id))[0].data[
            "session_id"
        ]
    assert session_id is not None
    return session_id


@pytest.mark.parametrize("window", [2, 5, 6, 9])
async def test_the_window_limits_what_is_sent_and_never_parts_a_result_from_its_call(
    start: Start, model: ModelStub, window: int
) -> None:
    async with start(openai_base_url=model.url, model="stub", window=window) as service:
        await talk(service, 4)

    assert all(sound(call) for call in model.calls)
    assert all(len(roles(call)) <= max(window, 3) for call in model.calls)
    assert all(roles(call)[0] == "user" for call in model.calls)
    # a turn is 4 messages, and the last request is about 3 of them: whole turns before it, as many as fit
    assert len(roles(model.calls[-1])) == 3 + 4 * max(0, (window - 3) // 4)


async def test_a_call_that_was_cancelled_does_not_spoil_the_session(
    start: Start, model: ModelStub, web: WebServices
) -> None:
    model.script(intent("tool", ToolCall("weather", {"place": "Seoul"}), SUM))
    web.faults["geocoding"] = "hang"
    async with start(openai_base_url=model.url, model="stub", **web.urls()) as service:
        async with service.stream("POST", "/chat", json=said("weather and a sum")) as frames:
            session = (await anext(frames)).data
            async for frame in frames:
                if frame.event == "tool":
                    await service.http.post(f"/runs/{session['run_id']}/cancel")
                    break
            assert [frame async for frame in frames][-1].data["status"] == "cancelled"
        frames = await service.chat("never mind", session["session_id"])

    assert content(frames)
    assert roles(model.calls[-1]) == ["user", "call", "tool", "tool", "user"]
    assert all(sound(call) for call in model.calls)
    assert "not carried out" in model.calls[-1].body["messages"][3]["content"]


@pytest.mark.parametrize("server", ["openai", "llama.cpp", "openrouter"])
async def test_a_conversation_too_long_for_the_answer_is_shortened_once(
    scripted: Client, model: ModelStub, server: str
) -> None:
    session_id = await talk(scripted, 3)
    asked = len(model.calls)
    model.script(intent("tool", SUM), overflow(server), answer("short enough"))

    frames = await scripted.chat("and now?", session_id)

    assert content(frames) == "short enough"
    first, second = model.calls[asked + 1 :]
    assert len(roles(first)) == 15
    assert roles(second) == ["user", "call", "tool"]


async def test_a_conversation_too_long_for_the_analysis_is_shortened_once(scripted: Client, model: ModelStub) -> None:
    session_id = await talk(scripted, 3)
    asked = len(model.calls)
    model.script(overflow(), answer("no JSON"), intent("tool", SUM), answer("126"))

    frames = await scripted.chat("and now?", session_id)

    assert content(frames) == "126"
    assert [roles(call) for call in model.calls[asked + 1 : asked + 3]] == [["user"], ["user", "assistant", "user"]]
    assert all(call.wants_intent for call in model.calls[asked : asked + 3])


@pytest.mark.parametrize("replies", [(overflow(), overflow()), (intent(), overflow(), overflow())])
async def test_what_is_still_too_long_is_an_error(
    scripted: Client, model: ModelStub, replies: tuple[Reply, ...]
) -> None:
    model.script(*replies)

    frames = await scripted.chat("x" * 10_000)

    assert frames[-1].event == "error"
    assert (frames[-1].data["kind"], frames[-1].data["retryable"]) == ("context_overflow", False)
    assert len(model.calls) == len(replies)


# Servers that disagree about tool calls in a conversation


def wants_tools_named(call: Call) -> Reply | None:
    """As Anthropic behind a gateway."""
    if any(message["role"] == "tool" for message in call.body["messages"]) and not call.body.get("tools"):
        return refusal(400, "Requests which include tool results must define tools", type="invalid_request_error")
    return None


def knows_no_tools(call: Call) -> Reply | None:
    """As Ollama with a model whose template has none."""
    return refusal(400, "gemma does not support tools") if call.body.get("tools") else None


def calls_whatever_it_is_told(call: Call) -> Reply | None:
    """As Ollama, which does not know tool_choice."""
    return answer(SUM) if call.body.get("tools") and not call.wants_intent else None


@pytest.mark.parametrize("provider", ["openai", "openrouter"])
@pytest.mark.parametrize("server", [wants_tools_named, knows_no_tools, calls_whatever_it_is_told])
async def test_every_server_gets_the_conversation_as_it_wants_it(
    start: Start, model: ModelStub, provider: str, server: Callable[[Call], Reply | None]
) -> None:
    def reply(call: Call) -> Reply:
        if refused := server(call):
            return refused
        if not call.wants_intent:
            return answer("126")
        return intent("tool", SUM, needs_more=True)

    model.reply = reply
    urls = {
        "openai": {"openai_base_url": model.url},
        "openrouter": {"openrouter_api_key": "sk-or-1", "openrouter_base_url": model.url},
    }
    async with start(**urls[provider], model="stub") as service:
        frames = await service.chat("(15+27)*3")
        session_id = frames[0].data["session_id"]
        again = await service.chat("and again?", session_id)

    assert content(frames) == content(again) == "126"
    assert len(tools(frames)) == 1
    assert all(sound(call) for call in model.calls)
    assert all(call.body["tool_choice"] == "none" for call in model.calls if call.body.get("tools"))


async def test_openrouter_is_told_the_tools_whenever_their_results_are_shown(start: Start, model: ModelStub) -> None:
    model.script(intent("tool", SUM, needs_more=True), intent("tool"), answer("126"))
    tools = ("calculator", "weather", "search")
    async with start(openrouter_api_key="sk-or-1", openrouter_base_url=model.url, model="stub", tools=tools) as service:
        await service.chat("(15+27)*3")

    assert ["tool_choice" in call.body for call in model.calls] == [False, True, True]
    named = [[tool["function"]["name"] for tool in call.body["tools"]] for call in model.calls[1:]]
    assert named == [["calculator", "weather", "search"]] * 2


async def test_a_call_nobody_asked_for_leaves_no_trace(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("Hello.", SUM))

    session_id = (await scripted.chat("hi"))[0].data["session_id"]
    frames = await scripted.chat("and?", session_id)

    assert content(frames)
    assert roles(model.calls[-1]) == ["user", "assistant", "user"]


async def test_an_empty_answer_is_a_failure(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer(""))

    frames = await scripted.chat("hi")

    assert frames[-1].event == "error"
    assert frames[-1].data["kind"] == "model_stream_broken"
    assert "empty" in frames[-1].data["message"]
