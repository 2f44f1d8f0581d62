"""The body that creates a run, and what it asks of a graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from threadline.domain.errors import Missing, Rejected
from threadline.domain.headers import RESERVED
from threadline.domain.records import Assistant, Caller, MultitaskStrategy
from threadline.services.assistants import BOTH, Assistants
from threadline.services.bodies import CheckpointBody, Document, Json
from threadline.services.runs import StartRun
from threadline.services.webhooks import Webhooks

Mode = Literal[
    "values", "updates", "messages", "messages-tuple", "events", "custom", "debug", "tasks", "checkpoints", "tools"
]
MAX_DELAY = 60 * 60 * 24 * 365


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _distinct(modes: list[Mode]) -> list[Mode]:
    return list(dict.fromkeys(modes)) or ["values"]


Modes = Annotated[list[Mode], BeforeValidator(_listed), AfterValidator(_distinct)]
Nodes = Literal["*"] | Annotated[list[str], BeforeValidator(_listed)]


class SendBody(BaseModel):
    node: str
    input: Json = None


class CommandBody(BaseModel):
    resume: Json = None
    update: Document | list[Annotated[list[Json], Field(min_length=2, max_length=2)]] | None = None
    goto: str | SendBody | list[str | SendBody] | None = None


class ConfigBody(BaseModel):
    tags: list[str] | None = None
    recursion_limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    configurable: Document = Field(default_factory=dict)
    metadata: Document = Field(default_factory=dict)


class RunBody(BaseModel):
    """A run to create. Fields this service knows nothing of are passed over."""

    assistant_id: str = Field(description="An assistant's UUID, or the name of a graph.")
    input: Json = Field(None, description="The graph's input; null goes on from where the thread stands.")
    command: CommandBody | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: str | None = Field(None, description="The checkpoint to go on from, instead of the newest.")
    config: ConfigBody = Field(default_factory=ConfigBody)
    context: Document = Field(default_factory=dict)
    metadata: Document = Field(default_factory=dict)
    stream_mode: Modes = ["values"]
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    if_not_exists: Literal["create", "reject"] = "reject"
    on_disconnect: Literal["cancel", "continue"] = "continue"
    on_completion: Literal["delete", "keep"] = Field("delete", description="Of a run without a thread.")
    after_seconds: float | None = Field(None, ge=0, le=MAX_DELAY)
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = Field(None, description="The old name of durability: false is exit.")
    webhook: str | None = Field(None, max_length=2000)
    feedback_keys: list[str] | None = None


class Calls:
    """Makes of bodies what `Runs.start` takes."""

    def __init__(self, *, assistants: Assistants, webhooks: Webhooks) -> None:
        self._assistants = assistants
        self._webhooks = webhooks

    async def request(
        self,
        body: RunBody,
        *,
        caller: Caller,
        thread_id: str | None,
        shown: bool = False,
        whole: bool = False,
        vet: bool = True,
    ) -> StartRun:
        """What the body asks for, on a thread or, without one, on a thread of its own that goes with the run.

        `shown`: the caller reads what comes of it. `whole`: that is the state at the end. `vet`: the webhook is new
        and looked at. Raises Invalid, Missing, Forbidden or Rejected.
        """
        assistant = await self._assistants.resolve(body.assistant_id, caller)
        if body.config.configurable and body.context:
            raise Rejected(BOTH)
        if body.webhook is not None and vet:
            await self._webhooks.check(body.webhook)
        modes = body.stream_mode if not whole or "values" in body.stream_mode else [*body.stream_mode, "values"]
        call: dict[str, Any] = {
            "input": body.input,
            "command": _given(body.command),
            "config": _config(body.config, assistant),
            "context": _context(body, assistant),
            "stream_mode": modes,
            "subgraphs": body.stream_subgraphs,
            "resumable": body.stream_resumable,
            "interrupt_before": body.interrupt_before,
            "interrupt_after": body.interrupt_after,
            "durability": body.durability or ("exit" if body.checkpoint_during is False else "sync"),
            "webhook": body.webhook,
            "feedback_keys": body.feedback_keys,
            "temporary": thread_id is None and body.on_completion == "delete",
        }
        checkpoint = _given(body.checkpoint) or ({"checkpoint_id": body.checkpoint_id} if body.checkpoint_id else None)
        if checkpoint:
            call["checkpoint"] = checkpoint
        if body.after_seconds:
            call["after_seconds"] = body.after_seconds
        return StartRun(
            caller,
            thread_id=thread_id,
            call=call,
            assistant=assistant,
            metadata={**body.config.metadata, **body.metadata},
            strategy=body.multitask_strategy,
            create=body.if_not_exists == "create",
            shown=shown,
        )


def missing(error: Missing) -> Missing:
    """In the words LangGraph's clients know."""
    return Missing("Thread or assistant not found.") if error.message.startswith("There is no session") else error


def _given(body: BaseModel | None) -> dict[str, Any] | None:
    return body.model_dump(exclude_none=True) or None if body is not None else None


def _config(config: ConfigBody, assistant: Assistant) -> dict[str, Any]:
    """The assistant's config under the run's own."""
    own = config.model_dump(exclude_none=True, exclude={"metadata"})
    base = assistant.config
    merged = {**base, **own}
    given = {**(base.get("configurable") or {}), **own["configurable"]}
    merged["configurable"] = {key: given[key] for key in given if not key.startswith(RESERVED)}
    if base.get("tags") and own.get("tags"):
        merged["tags"] = [*base["tags"], *own["tags"]]
    return merged


def _context(body: RunBody, assistant: Assistant) -> dict[str, Any]:
    """Config and context mirror each other: a graph may read what it was given in either."""
    return {**assistant.context, **body.config.configurable, **body.context}
