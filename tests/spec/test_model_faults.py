"""Model servers fail in many ways; the client is always told how, and nothing that was said is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Start
from tests.service import Client, Frame, Shared, said, shared
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

SECRET = "sk-very-secret"
UPSTREAM = f"Incorrect API key provided: {SECRET}, see http://upstream.example"
SUM = ToolCall("calculator", {"expression": "(15+27)*3"})
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def impatient(server: ModelStub, /, **values: Any) -> dict[str, Any]:
    """Settings for a server whose key is `SECRET`, that is asked once and waited for briefly."""
    defaults = {"openai_base_url": server.url, "openai_api_key": SECRET, "model": "stub"}
    return {**defaults, "model_retries": 0, "model_timeout": 0.5, **values}


Told = tuple[Client, ModelStub]
in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatients(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Shared, ModelStub]]:
    async with ModelStub() as model:
        async with shared(tmp_path_factory.mktemp("impatients"), **impatient(model)) as service:
            yield service, model


@pytest_asyncio.fixture(loop_scope="module")
async def told(impatients: tuple[Shared, ModelStub]) -> AsyncIterator[Told]:
    """A caller, and the model, which has forgotten all that went before."""
    service, model = impatients
    model.forget()
    async with service.caller() as client:
        yield client, model


def openrouter(server: ModelStub, /, **values: Any) -> dict[str, Any]:
    return {"openrouter_api_key": SECRET, "openrouter_base_url": server.url, "model_retries": 0, **values}


def ends(frames: list[Frame]) -> list[str]:
    """The frames that end a stream; there must be exactly one, the last."""
    return [frame.event for frame in frames if frame.event in ("done", "error")]


def text(frames: list[Frame]) -> str:
    return "".join(frame.data["text"] for frame in frames if frame.event == "token")


def content(frames: list[Frame]) -> str:
    assert (ends(frames), frames[-1].event) == (["done"], "done"), frames[-1]
    return str(next(frame.data["content"] for frame in frames if frame.event == "message"))


async def row(service: Client, session_id: str) -> dict[str, Any]:
    """The newest row of chat_history."""
    newest: dict[str, Any] = (await service.json(f"/sessions/{session_id}/history"))["items"][0]
    return newest


def assert_discreet(model: ModelStub, *told: Any) -> None:
    """No word of the key, the address or what the server wrote."""
    shown = json.dumps(told, default=str)
    for secret in (SECRET, str(model.port), "127.0.0.1", "upstream", "nginx", "Incorrect"):
        assert secret not in shown


BEFORE_ANY_TEXT = [
    pytest.param(refusal(401, UPSTREAM), "model_refused", False, id="401"),
    pytest.param(refusal(402, UPSTREAM), "model_refused", False, id="402"),
    pytest.param(refusal(404, UPSTREAM), "model_refused", False, id="unknown model"),
    pytest.param(refusal(400, UPSTREAM), "model_invalid", False, id="400"),
    pytest.param(rate_limited(30), "model_overloaded", True, id="429"),
    pytest.param(refusal(503, UPSTREAM), "model_overloaded", True, id="503"),
    pytest.param(refusal(500, UPSTREAM), "model_unreachable", True, id="500"),
    pytest.param(html(502), "model_unreachable", True, id="502 html"),
    pytest.param(answer(End.CLOSE), "model_stream_broken", True, id="clean close"),
    pytest.param(answer(End.CUT), "model_unreachable", True, id="killed"),
    pytest.param(answer(End.RESET), "model_unreachable", True, id="reset"),
    pytest.param(answer(End.STALL), "model_timeout", True, id="stall"),
    pytest.param(answer(ErrorEvent(502, UPSTREAM)), "model_unreachable", True, id="error event"),
    pytest.param(answer(ErrorEvent(429, UPSTREAM, openrouter=True)), "model_overloaded", True, id="OpenRouter's"),
    pytest.param(answer(MALFORMED), "model_stream_broken", True, id="malformed"),
    pytest.param(Reply(parts=(Raw(b"<html>"), End.CLOSE)), "model_stream_broken", True, id="a web page"),
]

AFTER_SOME_TEXT = [
    pytest.param(End.CLOSE, "model_stream_broken", id="clean close"),
    pytest.param(End.CUT, "model_stream_broken", id="killed"),
    pytest.param(End.RESET, "model_stream_broken", id="reset"),
    pytest.param(End.STALL, "model_timeout", id="stall"),
    pytest.param(ErrorEvent(502, UPSTREAM), "model_stream_broken", id="error event"),
    pytest.param(ErrorEvent(502, UPSTREAM, openrouter=True), "model_stream_broken", id="OpenRouter's"),
    pytest.param(Finish("error"), "model_stream_broken", id="finish_reason error"),
    pytest.param(MALFORMED, "model_stream_broken", id="malformed"),
]


# What the client sees


@pytest.mark.parametrize(("reply", "kind", "retryable"), BEFORE_ANY_TEXT)
@pytest.mark.parametrize("node", ["analyze_intent", "respond"])
@in_one_loop
async def test_a_fault_before_any_text(told: Told, node: str, reply: Reply, kind: str, retryable: bool) -> None:
    service, model = told
    earlier = [] if node == "analyze_intent" else [intent()]
    # a 400 to a request for JSON may mean the JSON: it is asked again without
    model.script(*earlier, *[reply] * (2 if (kind, node) == ("model_invalid", "analyze_intent") else 1))
    frames = await service.chat("hi")
    kept = await row(service, frames[0].data["session_id"])

    assert ends(frames) == ["error"]
    failed, error = frames[-2:]
    assert (failed.event, failed.data["node"], failed.data["status"]) == ("node", node, "failed")
    assert error.event == "error"
    assert set(error.data) == {"kind", "message", "retryable"}
    assert (error.data["kind"], error.data["retryable"]) == (kind, retryable)
    assert error.data["message"].startswith("The model stub ")
    assert (kept["user_message"], kept["assistant_message"]) == ("hi", None)
    assert (kept["extra_metadata"]["status"], kept["extra_metadata"]["error"]) == ("error", error.data)
    assert_discreet(model, [frame.data for frame in frames], kept)


@pytest.mark.parametrize(("end", "kind"), AFTER_SOME_TEXT)
async def test_a_fault_after_some_text(start: Start, model: ModelStub, end: Any, kind: str) -> None:
    model.script(intent("tool", SUM), answer("half ", "an ", end))
    async with start(**impatient(model, fallback_models="spare")) as service:
        frames = await service.chat("hi")
        session_id = frames[0].data["session_id"]
        kept = await row(service, session_id)
        document = await service.json(f"/sessions/{session_id}")
        again = await service.read("GET", f"/runs/{frames[0].data['run_id']}/events")

    assert ends(frames) == ["error"]
    assert [(f.event, f.data.get("status")) for f in frames[-2:]] == [("node", "failed"), ("error", None)]
    assert (frames[-1].data["kind"], frames[-1].data["retryable"]) == (kind, True)
    assert text(frames) == "half an "
    assert kept["assistant_message"] == "half an "
    assert kept["tools_used"] == ["calculator"]
    assert (kept["tokens_used"], kept["cost"]) == (None, None)
    _, answered = document["messages"]
    assert (answered["content"], answered["metadata"]["status"]) == ("half an ", "error")
    assert again == frames
    assert len(model.calls) == 2
    assert_discreet(model, [frame.data for frame in frames], kept, document)


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([refusal(401, UPSTREAM)], "model_refused"),
        ([intent(), refusal(503, UPSTREAM)], "model_overloaded"),
        ([intent(), answer("half", End.CLOSE)], "model_stream_broken"),
        ([intent(), answer("half", End.STALL)], "model_timeout"),
        ([intent(), overflow(), overflow()], "context_overflow"),
    ],
)
@in_one_loop
async def test_without_a_stream_a_fault_is_a_problem(told: Told, replies: list[Reply], kind: str) -> None:
    service, model = told
    model.script(*replies)
    response = await service.http.post("/chat", json=said("hi", stream=False))
    (session,) = (await service.json("/sessions"))["items"]
    kept = await row(service, session["session_id"])

    problem = response.json()
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["kind"]) == (502, kind)
    assert problem["detail"] == kept["extra_metadata"]["error"]["message"]
    assert_discreet(model, problem, dict(response.headers), kept)


async def test_a_server_that_is_not_there(start: Start) -> None:
    async with start(openai_base_url="http://user:pw@127.0.0.1:9/v1", model="stub", model_retries=0) as service:
        frames = await service.chat("hi")

    assert frames[-1].data == {
        "kind": "model_unreachable",
        "message": "The model stub cannot be reached.",
        "retryable": True,
    }


async def test_nothing_secret_reaches_the_log(
    start: Start, model: ModelStub, capfd: pytest.CaptureFixture[str]
) -> None:
    model.script(intent(), refusal(401, UPSTREAM), intent(), answer("half", ErrorEvent(502, UPSTREAM)))
    async with start(**impatient(model)) as service:
        await service.chat("first")
        await service.chat("second")

    logged = "".join(capfd.readouterr())
    assert logged.count("run_failed") == 2
    assert_discreet(model, logged)


# Getting over it


async def test_a_failed_turn_is_taken_up_again_at_the_node_that_failed(start: Start, model: ModelStub) -> None:
    model.script(intent("tool", SUM), answer("half", End.RESET), answer("126, as a whole"))
    async with start(**impatient(model)) as service:
        failed = await service.chat("(15+27)*3")
        session_id = failed[0].data["session_id"]
        checkpoint_id = (await row(service, session_id))["extra_metadata"]["checkpoint_id"]
        body = {"checkpoint_id": checkpoint_id, "mode": "rerun"}
        frames = await service.read("POST", f"/sessions/{session_id}/replay", json=body)

    assert content(frames) == "126, as a whole"
    assert {frame.data["node"] for frame in frames if frame.event == "node"} == {"respond"}
    assert len(model.calls) == 3


async def test_after_a_failed_turn_the_session_goes_on(start: Start, model: ModelStub) -> None:
    model.script(intent("tool", SUM), answer("half", End.RESET), intent(), answer("fine"))
    async with start(**impatient(model)) as service:
        session_id = (await service.chat("(15+27)*3"))[0].data["session_id"]
        frames = await service.chat("again?", session_id)

    assert content(frames) == "fine"
    shown = [message["role"] for message in model.calls[-1].body["messages"]]
    assert shown == ["system", "user", "assistant", "tool", "user"]


async def test_one_429_is_waited_out(start: Start, model: ModelStub) -> None:
    model.script(rate_limited(0.01), intent(), rate_limited(0.01), answer("at last"))
    async with start(**impatient(model, model_retries=2)) as service:
        frames = await service.chat("hi")

    assert content(frames) == "at last"
    assert len(model.calls) == 4


@pytest.mark.parametrize("reply", [refusal(503), refusal(401), html(502), answer(End.CLOSE), answer(End.STALL)])
async def test_another_model_answers_while_the_first_is_down(start: Start, model: ModelStub, reply: Reply) -> None:
    model.script(intent(), reply, model="stub")
    model.script(answer("from the spare"), model="spare")
    async with start(**impatient(model, fallback_models="spare")) as service:
        frames = await service.chat("hi")
        kept = await row(service, frames[0].data["session_id"])

    assert content(frames) == text(frames) == "from the spare"
    assert kept["model_used"] == "spare"


async def test_when_every_model_fails_all_are_named(start: Start, model: ModelStub) -> None:
    model.script(refusal(503, UPSTREAM), model="stub")
    model.script(refusal(404, UPSTREAM), model="spare")
    async with start(**impatient(model, fallback_models="spare")) as service:
        error = (await service.chat("hi"))[-1].data

    assert error["kind"] == "model_overloaded"
    assert "The model stub is overloaded" in error["message"]
    assert "The model spare is not known" in error["message"]


async def test_comments_keep_a_slow_answer_alive(start: Start, model: ModelStub) -> None:
    model.script(intent(), answer(Comment(), 0.3, Comment(), 0.3, Comment(), 0.3, "slow"))
    async with start(**impatient(model)) as service:
        assert content(await service.chat("hi")) == "slow"


async def test_an_answer_cut_off_by_its_length_is_an_answer(start: Start, model: ModelStub) -> None:
    model.script(intent(), answer("so far", Finish("length")))
    async with start(**impatient(model)) as service:
        assert content(await service.chat("hi")) == "so far"


async def test_an_analysis_cut_off_by_its_length_is_asked_for_again(start: Start, model: ModelStub) -> None:
    model.script(answer('{"kind": "tool", "confidence": 0.9', Finish("length")), intent(), answer("fine"))
    async with start(**impatient(model)) as service:
        assert content(await service.chat("hi")) == "fine"


def chunk(escaped: str) -> Raw:
    """A token written as JSON escapes."""
    return Raw(b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % escaped.encode())


async def test_half_a_character_does_not_break_the_stream(start: Start, model: ModelStub) -> None:
    model.script(intent(), answer("smile ", chunk("\\ud83d"), chunk("\\ude00"), " ok"))
    async with start(**impatient(model)) as service:
        frames = await service.chat("hi")
        session_id = frames[0].data["session_id"]
        kept = await row(service, session_id)
        again = await service.chat("and?", session_id)

    assert content(frames).startswith("smile ")
    assert content(frames).endswith(" ok")
    assert kept["assistant_message"] == content(frames)
    assert content(again)


async def test_half_a_character_is_kept_too_where_the_answer_breaks_off(start: Start, model: ModelStub) -> None:
    model.script(intent(), answer("smile ", chunk("\\ud83d"), End.CLOSE))
    async with start(**impatient(model)) as service:
        frames = await service.chat("hi")
        kept = await row(service, frames[0].data["session_id"])

    assert (frames[-1].event, frames[-1].data["kind"]) == ("error", "model_stream_broken")
    assert kept["assistant_message"] == text(frames) == "smile �"


# Which model, and what it cost


async def test_without_a_name_the_first_model_listed_answers(start: Start) -> None:
    async with ModelStub(models=("first", "second")) as model, start(openai_base_url=model.url) as service:
        frames = await service.chat("hi")
        await service.chat("hi again")
        kept = await row(service, frames[0].data["session_id"])

    assert {call.body["model"] for call in model.calls} == {"first"}
    assert kept["model_used"] == "first"
    assert model.listings == 1


async def test_the_model_used_is_the_one_that_answered_under_the_name_it_gave(start: Start, model: ModelStub) -> None:
    model.script(intent(), model="small")
    model.script(answer("hello", model="big-2026-11"), model="big")
    async with start(**impatient(model, model="big", analysis_model="small")) as service:
        frames = await service.chat("hi")
        kept = await row(service, frames[0].data["session_id"])

    assert kept["model_used"] == "big-2026-11"


def priced(reply: Reply, cost: float | None) -> Reply:
    return Reply(reply.parts, usage=USAGE, cost=cost)


async def test_openrouter_s_cost_is_that_of_every_call_of_the_turn(start: Start, model: ModelStub) -> None:
    model.script(priced(intent("tool", SUM), 0.25), priced(answer("126"), 0.5))
    async with start(**openrouter(model)) as service:
        frames = await service.chat("(15+27)*3")
        kept = await row(service, frames[0].data["session_id"])

    assert content(frames) == "126"
    done = frames[-1].data
    assert done["cost"] == kept["cost"] == 0.75
    assert done["usage"] == {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "model_calls": 2}
    assert kept["tokens_used"] == 30
    assert all(call.headers["authorization"] == f"Bearer {SECRET}" for call in model.calls)


async def test_a_free_answer_costs_nothing(start: Start, model: ModelStub) -> None:
    model.script(priced(intent(), 0.0), priced(answer("free"), 0.0))
    async with start(**openrouter(model)) as service:
        assert (await service.chat("hi"))[-1].data["cost"] == 0


@pytest.mark.parametrize("costs", [(0.25, None), (None, 0.25)])
async def test_a_cost_nobody_knows_is_null(
    start: Start, model: ModelStub, costs: tuple[float | None, float | None]
) -> None:
    model.script(priced(intent(), costs[0]), priced(answer("hello"), costs[1]))
    async with start(**openrouter(model, model="no/such-model")) as service:
        response = await service.http.post("/chat", json=said("hi", stream=False))
        body = response.json()
        kept = await row(service, body["session_id"])

    assert body["cost"] is None
    assert kept["cost"] is None
    assert body["usage"]["total_tokens"] == 30


async def test_a_refused_call_costs_nothing_and_a_broken_one_nobody_knows_what(start: Start, model: ModelStub) -> None:
    model.script(priced(intent(), 0.25), refusal(503), priced(intent(), 0.25), answer("half", End.CUT))
    async with start(**openrouter(model)) as service:
        refused = await row(service, (await service.chat("hi"))[0].data["session_id"])
        broken = await row(service, (await service.chat("hi"))[0].data["session_id"])

    assert (refused["cost"], refused["tokens_used"]) == (0.25, 15)
    assert (broken["cost"], broken["tokens_used"]) == (None, None)


async def test_a_fault_of_one_session_is_none_of_another(start: Start, model: ModelStub) -> None:
    gate = asyncio.Event()

    def reply(call: Any) -> Reply:
        if call.wants_intent:
            return intent()
        return answer("half", gate, End.RESET) if call.last_message["content"] == "bad" else answer("fine", gate, "!")

    model.reply = reply
    async with start(**impatient(model, model_timeout=5)) as service:
        turns = [asyncio.create_task(service.chat(message)) for message in ("bad", "good", "bad", "good")]
        await model.received(8)
        gate.set()
        one, two, three, four = await asyncio.gather(*turns)

    assert ends(one) == ends(three) == ["error"]
    assert content(two) == content(four) == "fine!"
