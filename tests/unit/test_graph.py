"""The graph's pure parts: edges, prompts, and what an intent must look like."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from pydantic import ValidationError

from graph import prompts, routes
from graph.build import build
from graph.intent import Intent, response_format
from graph.nodes.analyze_intent import _new_calls, _parsed, describe
from graph.request import ask
from graph.state import MAX_ROUNDS, State
from threadline.services.models.offline import OfflineModel
from tools.toolbox import Toolbox

CALL = {"name": "calculator", "args": {"expression": "1+1"}, "id": "call_1", "type": "tool_call"}
ASKED = AIMessage("", tool_calls=[CALL])
TOLD = ToolMessage("2", tool_call_id="call_1")
SPECS = [{"name": "calculator", "description": "Works out sums.", "parameters": {"type": "object", "properties": {}}}]


# Edges


@pytest.mark.parametrize(
    ("messages", "goes_to"),
    [
        ([HumanMessage("hi")], "respond"),
        ([HumanMessage("1+1"), ASKED], "execute_tools"),
        ([HumanMessage("1+1"), ASKED, TOLD], "respond"),
        ([HumanMessage("1+1"), ASKED, TOLD, HumanMessage("and?")], "respond"),
        ([], "respond"),
    ],
)
def test_after_the_analysis_open_calls_are_made(messages: list[AnyMessage], goes_to: str) -> None:
    assert routes.after_analysis({"messages": messages}) == goes_to


@pytest.mark.parametrize(("needs_more", "goes_to"), [(True, "analyze_intent"), (False, "respond")])
def test_after_the_tools_the_intent_decides(needs_more: bool, goes_to: str) -> None:
    intent = {"kind": "tool", "confidence": 1.0, "language": "en", "needs_more": needs_more}
    state: Any = {"messages": [ASKED, TOLD], "intent": intent}

    assert routes.after_tools(state) == goes_to
    assert routes.after_tools(State(messages=[ASKED, TOLD])) == "respond"


def test_the_graph_is_the_one_that_is_drawn() -> None:
    model = GenericFakeChatModel(messages=iter(()))
    drawn = build(chat=model, analysis=model, specs=SPECS, tools=Toolbox([]), window=40).compile().get_graph()

    assert {(edge.source, edge.target) for edge in drawn.edges} == {
        ("__start__", "analyze_intent"),
        ("analyze_intent", "execute_tools"),
        ("analyze_intent", "respond"),
        ("execute_tools", "analyze_intent"),
        ("execute_tools", "respond"),
        ("respond", "__end__"),
    }


# Intents


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "chat", "confidence": 0.9, "language": "en"}',
        '```json\n{"kind": "chat", "confidence": 0.9, "language": "en", "tool_calls": []}\n```',
        'Here it is: {"kind": "chat", "confidence": 0.9, "language": "en", "mood": "fine"} I hope it helps.',
        '<think>perhaps {"kind": …}\nor not</think>\n{"kind": "chat", "confidence": 0.9, "language": "en"}',
    ],
)
def test_an_intent_is_found_in_what_models_put_around_it(text: str) -> None:
    assert _parsed(text) == Intent(kind="chat", confidence=0.9, language="en")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Invalid JSON"),
        ("It is a greeting.", "Invalid JSON"),
        ("[]", "object"),
        ('{"kind": "chat", "confidence": 0.9, "language": "en"', "Invalid JSON"),
        ('{"kind": "music", "confidence": 0.9, "language": "en"}', "'tool', 'chat'"),
        ('{"kind": "chat", "confidence": 7, "language": "en"}', "less than or equal to 1"),
        ('{"kind": "chat", "confidence": NaN, "language": "en"}', "confidence"),
        ('{"kind": "chat", "confidence": 0.9}', "language"),
        ('{"kind": "tool", "confidence": 1, "language": "en", "tool_calls": [{"name": "x", "args": "1"}]}', "args"),
        ('{"kind": "tool", "confidence": 1, "language": "en", "tool_calls": "calculator"}', "tool_calls"),
    ],
)
def test_what_is_no_intent_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        _parsed(text)


def test_the_schema_names_the_tools_and_their_arguments() -> None:
    wanted = response_format(SPECS)

    schema = wanted["json_schema"]["schema"]
    (variant,) = schema["properties"]["tool_calls"]["items"]["anyOf"]
    assert wanted["json_schema"]["name"] == "intent"
    assert variant["properties"] == {"name": {"const": "calculator"}, "args": SPECS[0]["parameters"]}
    assert set(schema["required"]) == set(Intent.model_fields)
    assert "calculator: Works out sums." in describe(SPECS)


def planned(*expressions: str) -> Intent:
    calls = [{"name": "calculator", "args": {"expression": expression}} for expression in expressions]
    return Intent.model_validate({"kind": "tool", "confidence": 1, "language": "en", "tool_calls": calls})


def test_a_call_is_made_once_a_turn() -> None:
    asked = [HumanMessage("1+1"), ASKED, TOLD]

    assert [call["args"]["expression"] for call in _new_calls(planned("1+1", "2", "2"), asked)] == ["2"]
    assert [call["args"]["expression"] for call in _new_calls(planned("1+1"), [*asked, HumanMessage("again")])] == [
        "1+1"
    ]


def test_every_call_has_an_id_of_its_own() -> None:
    calls = _new_calls(planned("1", "2", "3"), [HumanMessage("hi")])

    assert len({call["id"] for call in calls}) == 3


def test_a_turn_goes_through_the_tools_so_often_and_no_more() -> None:
    steps = [
        message
        for step in range(MAX_ROUNDS)
        for message in (
            AIMessage("", tool_calls=[{**CALL, "id": f"call_{step}", "args": {"expression": str(step)}}]),
            ToolMessage("0", tool_call_id=f"call_{step}"),
        )
    ]

    intent = {"kind": "tool", "confidence": 1.0, "language": "en", "needs_more": True}

    def after(messages: list[AnyMessage]) -> str:
        return routes.after_tools({"messages": messages, "intent": intent})

    assert after([HumanMessage("hi"), *steps[:-2]]) == "analyze_intent"
    assert after([HumanMessage("hi"), *steps]) == "respond"
    assert after([HumanMessage("hi"), *steps, HumanMessage("and now?"), *steps[:2]]) == "analyze_intent"


# Requests


@pytest.mark.parametrize("name_tools", [False, True])
async def test_the_offline_model_answers_although_tools_are_named(name_tools: bool) -> None:
    call = {**CALL, "args": {"expression": "6*7"}}
    told = ToolMessage('{"expression": "6*7", "result": "42", "unit": null}', name="calculator", tool_call_id="call_1")
    asked = [HumanMessage("What is 6*7?"), AIMessage("", tool_calls=[call]), told]

    for messages in (asked, [*asked, AIMessage("42"), HumanMessage("What is 8*8?")]):
        asking = partial(ask, model=OfflineModel(), specs=SPECS, name_tools=name_tools)
        reply = await asking(messages, config={}, prompt=prompts.load("respond"))

        assert reply.text
        assert reply.tool_calls == []


# Prompts


@pytest.mark.parametrize(
    ("name", "variables"),
    [("analyze_intent", {"tools": "- calculator"}), ("respond", {"tools": "calculator", "intent": "tool"})],
)
def test_a_prompt_has_a_version_and_takes_its_variables(name: str, variables: dict[str, str]) -> None:
    prompt = prompts.load(name)

    assert (prompt.name, int(prompt.version) >= 1) == (name, True)
    text = prompt.render(**variables)
    assert all(value in text for value in variables.values())
    assert "$" not in text
    assert "---" not in text


@pytest.mark.parametrize("name", ["analyze_intent", "respond"])
def test_a_variable_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(KeyError):
        prompts.load(name).render()


def test_what_is_put_in_is_not_read_as_a_variable() -> None:
    text = prompts.load("respond").render(tools="costs $5, not $intent", intent="chat")

    assert "costs $5, not $intent" in text


@pytest.mark.parametrize(
    "content",
    [
        "no front matter",
        "---\nname: other\nversion: 1\n---\ntext",
        "---\nname: broken\n---\ntext",
        "---\nname broken\n---\nx",
    ],
)
def test_a_prompt_file_without_name_and_version_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.md").write_text(content, encoding="utf-8")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)

    with pytest.raises(ValueError, match="front matter"):
        prompts.load("broken")
