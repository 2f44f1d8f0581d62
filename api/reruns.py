"""The body that asks for a re-run, and what it asks of the service."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from api.chat import check_text
from api.context import Context
from api.streams import run_stream
from threadline.domain.records import Caller
from threadline.services.bodies import Document, Json
from threadline.services.rerun import Changes, Edit


class PromptText(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=100_000)


class StateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    values: Document = Field(description="What to write to the state, by name.")
    as_node: str | None = Field(None, description="The node that writes it; without one, the last that wrote.")


class CallBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    args: Document = Field(default_factory=dict)
    id: str | None = Field(None, min_length=1, max_length=200)


class AnswerBody(BaseModel):
    """A model's answer: what it says, and the tools it calls."""

    model_config = ConfigDict(extra="forbid")

    content: str | list[Json] = ""
    tool_calls: list[CallBody] = Field(default_factory=list, max_length=100)


Answers = Annotated[list[str | AnswerBody], Field(min_length=1, max_length=100)]


class ChangesBody(BaseModel):
    """What a re-run does otherwise; what is left out stays as it was."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, min_length=1, max_length=200)
    temperature: float | None = Field(None, ge=0, le=2)
    prompts: dict[str, Annotated[str, Field(min_length=1, max_length=200)] | PromptText] = Field(
        default_factory=dict, description="By name: a version that is kept, or a text."
    )
    message: str | None = Field(None, description="What is asked in place of the turn's question.")
    state: StateBody | None = None
    tools: Literal["recorded", "live"] = Field("recorded", description="Where answers to the same call come from.")
    models: Literal["recorded", "live"] = "recorded"
    answers: dict[str, str | AnswerBody | Answers] = Field(
        default_factory=dict, description="By node: what its next model call is answered with, or its next calls."
    )


class RerunBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    changes: ChangesBody = Field(default_factory=ChangesBody)
    into: Literal["branch", "session"] = Field("branch", description="A new branch here, or a session of its own.")


async def rerun(context: Context, caller: Caller, body: RerunBody, *, session_id: str, checkpoint_id: str) -> Response:
    """The stream of a re-run from a checkpoint. Raises Invalid, Missing or Conflict."""
    changes = _changes(context, body.changes)
    return run_stream(context, await context.reruns.start(session_id, checkpoint_id, caller, changes, into=body.into))


async def rerun_run(context: Context, caller: Caller, body: RerunBody, *, run_id: str) -> Response:
    """The stream of a re-run from where a run began. Raises Invalid, Missing or Conflict."""
    changes = _changes(context, body.changes)
    return run_stream(context, await context.reruns.start_run(run_id, caller, changes, into=body.into))


def _changes(context: Context, body: ChangesBody) -> Changes:
    told = body.model_dump(mode="json")
    check_text(body.message, told, max_chars=context.max_message_chars)
    return Changes(
        model=body.model,
        temperature=body.temperature,
        prompts=told["prompts"],
        message=body.message,
        state=Edit(**told["state"]) if told["state"] is not None else None,
        tools=body.tools,
        models=body.models,
        answers={node: _answers(given) for node, given in body.answers.items()},
    )


def _answers(given: str | AnswerBody | list[str | AnswerBody]) -> list[dict[str, Any]]:
    """Answers as the lines of a log have them."""
    return [_answer(one) for one in (given if isinstance(given, list) else [given])]


def _answer(given: str | AnswerBody) -> dict[str, Any]:
    if isinstance(given, str):
        return {"type": "ai", "content": given}
    calls = [
        {"name": call.name, "args": call.args, "id": call.id or f"call_{number}", "type": "tool_call"}
        for number, call in enumerate(given.tool_calls)
    ]
    return {"type": "ai", "content": given.content, "tool_calls": calls}
