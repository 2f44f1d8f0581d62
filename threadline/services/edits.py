"""Edits of a state: fitted to what its graph holds, tried without a trace, and made when their run begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, is_typeddict

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from langgraph.errors import InvalidUpdateError
from langgraph.types import StateSnapshot
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from threadline.domain.errors import Invalid
from threadline.domain.records import Run
from threadline.services import invocation
from threadline.services.graphs import Graph

_ANY = ConfigDict(arbitrary_types_allowed=True)


async def place(graph: Graph, run: Run, config: RunnableConfig) -> dict[str, Any]:
    """Where on its thread the run goes on from, as configurable keys, once its edit of the state is made."""
    start, edit = invocation.place(run), run.kwargs.get("edit")
    if edit is None:
        return start
    at: RunnableConfig = {
        "configurable": {**config["configurable"], "checkpoint_ns": "", **start},
        "metadata": config["metadata"],
    }
    made = await graph.aupdate_state(at, fitted(graph, edit["values"]), as_node=edit["as_node"])
    return {"checkpoint_ns": "", "checkpoint_id": made["configurable"]["checkpoint_id"]}


async def tried(
    graph: Graph, config: RunnableConfig, values: Mapping[str, Any], *, as_node: str | None
) -> StateSnapshot:
    """The state as an edit at a checkpoint would leave it. Nothing is kept. Raises Invalid with words for who edits."""
    draft = graph.copy({"checkpointer": _Draft(graph.checkpointer)})  # type: ignore[arg-type]
    given = fitted(graph, values)
    try:
        made = await draft.aupdate_state(config, given, as_node=as_node)
        return await draft.aget_state(made)
    except InvalidUpdateError as error:  # written for who calls, by LangGraph
        raise Invalid(f"state: {str(error).partition('For troubleshooting')[0].strip()}") from error
    except Exception as error:  # its reducers are anybody's code
        raise Invalid(f"state: the graph could not take these values: {type(error).__name__}.") from error


def fitted(graph: Graph, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the graph's state holds them. Raises Invalid where one does not fit its schema."""
    known = graph.stream_channels_list
    if unknown := sorted(set(values) - set(known)):
        raise Invalid(f"state.{unknown[0]}: the state holds no such value; it holds {', '.join(known)}")
    return {name: _fitted(graph, name, value) for name, value in values.items()}


def _fitted(graph: Graph, name: str, value: Any) -> Any:
    kind = graph.channels[name].UpdateType  # type: ignore[union-attr]  # streamed channels are no managed values
    try:
        adapter = TypeAdapter(kind, config=_ANY)
    except (PydanticSchemaGenerationError, PydanticUserError):
        try:
            adapter = TypeAdapter(kind)  # it has a config of its own
        except (PydanticSchemaGenerationError, PydanticUserError):
            return _in_shape(name, kind, value)
    except Exception:  # a type that only its own module can resolve
        return value
    as_messages = _messages(value) if "essage" in str(kind) else None
    if as_messages is not None:
        return as_messages
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int | str))
        raise Invalid(f"state.{name}{f'.{where}' if where else ''}: {first['msg']}") from error


def _in_shape(name: str, kind: Any, value: Any) -> Any:
    """What can be said without a schema, which a TypedDict of `typing` has none of before Python 3.12."""
    if is_typeddict(kind):
        if not isinstance(value, Mapping):
            raise Invalid(f"state.{name}: it is an object, with {', '.join(kind.__annotations__)}")
        if unknown := sorted(set(value) - set(kind.__annotations__)):
            raise Invalid(f"state.{name}.{unknown[0]}: there is no such value")
    return value


def _messages(value: Any) -> list[BaseMessage] | None:
    """Messages in any of the forms LangChain knows, removals too; None if it is something else."""
    try:
        return convert_to_messages(value if isinstance(value, list) else [value])
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None


class _Draft(BaseCheckpointSaver[Any]):
    """A saver that reads what another keeps, and keeps what is put to itself."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._put: dict[str, CheckpointTuple] = {}
        self._writes: dict[str, list[tuple[str, str, Any]]] = {}

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        checkpoint_id = get_checkpoint_id(config)
        found = self._put.get(checkpoint_id or "") or await self._saver.aget_tuple(config)
        if found is None:
            return None
        writes = self._writes.get(found.config["configurable"]["checkpoint_id"], [])
        return found._replace(pending_writes=[*(found.pending_writes or []), *writes])

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        async for found in self._saver.alist(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        place = config["configurable"]
        made: RunnableConfig = {
            "configurable": {
                "thread_id": place["thread_id"],
                "checkpoint_ns": place.get("checkpoint_ns", ""),
                "checkpoint_id": checkpoint["id"],
            }
        }
        self._put[checkpoint["id"]] = CheckpointTuple(made, checkpoint, metadata, config, [])
        return made

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        kept = self._writes.setdefault(config["configurable"]["checkpoint_id"], [])
        kept += [(task_id, channel, value) for channel, value in writes]
