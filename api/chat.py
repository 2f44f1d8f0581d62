"""POST /chat: say something, or answer what the agent asked."""

from __future__ import annotations

from typing import Any, Self

import orjson
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.context import Asking, Context, Using
from api.problems import of_run
from api.streams import run_stream
from threadline.domain.errors import Invalid
from threadline.domain.records import Run
from threadline.services.runs import Resume, StartRun

router = APIRouter(tags=["chat"])


class ResumeBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    interrupt_id: str = Field(min_length=1, max_length=200)
    value: Any


class ChatBody(BaseModel):
    """Exactly one of `message` and `resume`. Without `session_id` a new session begins."""

    model_config = ConfigDict(extra="forbid")

    message: str | None = Field(None, description="What the user says.")
    resume: ResumeBody | None = Field(None, description="The answer to an interrupt.")
    session_id: str | None = Field(None, description="UUID of the session to go on with.")
    stream: bool = Field(True, description="Server-sent events, or one JSON answer at the end.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.message is None) == (self.resume is None):
            raise ValueError("give either message or resume")
        if self.resume is not None and self.session_id is None:
            raise ValueError("resume needs the session_id of the session that waits")
        return self


@router.post(
    "/chat",
    summary="Say something; read node events, tokens and the answer as they come",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}, "application/json": {}}}},
)
async def chat(body: ChatBody, caller: Asking, context: Using) -> Response:
    check_text(body.message, body.resume and body.resume.value, max_chars=context.max_message_chars)
    resume = Resume(body.resume.interrupt_id, body.resume.value) if body.resume else None
    request = StartRun(caller, thread_id=body.session_id, message=body.message, resume=resume, shown=True)
    run = await context.runs.start(request)
    return run_stream(context, run) if body.stream else await _whole(context, run)


def check_text(message: str | None, beside: Any, *, max_chars: int) -> None:
    """Raises Invalid for what cannot be said or kept."""
    if message is not None:
        if not message.strip():
            raise Invalid("message: it is empty")
        if len(message) > max_chars:
            raise Invalid(f"message: it has {len(message)} characters; at most {max_chars} are accepted")
        if "\0" in message:
            raise Invalid("message: it holds a null byte")
    try:
        orjson.dumps([message, beside])
    except (TypeError, ValueError):
        raise Invalid("the text is not valid Unicode") from None


async def _whole(context: Context, run: Run) -> Response:
    """The run's answer as one JSON object, when it has ended."""
    message, interrupts, end = None, [], dict[str, Any]()
    async for event in context.runs.follow(run):
        if event.type == "message":
            message = event.data
        elif event.type == "interrupt":
            interrupts.append(event.data)
        elif event.type == "end":
            end = event.data
    if end["error"] is not None:
        return of_run(end["error"])
    brief = {key: end[key] for key in ("status", "usage", "cost", "checkpoint_id", "ms")}
    ids = {"session_id": run.thread_id, "run_id": run.run_id}
    answer = {**ids, **brief, "message": message, "interrupts": interrupts}
    return JSONResponse(answer, headers={"Content-Location": f"/runs/{run.run_id}"})
