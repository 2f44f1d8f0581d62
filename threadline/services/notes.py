"""Notes a run's model and tool calls as they are answered, and in a re-run finds their answers in a recording.

Models and tools of LangChain are seen through callbacks, whoever's they are; the built-in tools say themselves what
they do. Notes may come from any thread; they are kept until the run takes them.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import LLMResult
from langgraph.config import get_config
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from threadline.services import recording
from threadline.services.graphs import Graph
from threadline.services.models.usage import UsageMeter, message_of
from threadline.services.payload import delta, jsonable
from threadline.services.recording import Answer, Recording

PROMPT = "prompt"
"""Where the metadata of a model call says which prompt it was made with, as `name@version`."""


@dataclass(slots=True)
class _Open:
    """A model call under way."""

    node: str
    tasks: tuple[str, ...]
    prompt: str | None
    options: Mapping[str, Any]
    messages: Sequence[BaseMessage]
    key: str | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class _OpenTool:
    node: str
    tasks: tuple[str, ...]
    name: str
    args: Any


class Notes(UsageMeter):
    """The callback handler of one run: its meter too, since every handler more costs every token.

    `recording` is what a re-run answers from.
    """

    def __init__(self, recording: Recording | None = None) -> None:
        super().__init__()
        self.recording = recording
        self._open: dict[UUID | None, _Open | _OpenTool] = {}
        self._taken: list[dict[str, Any]] = []
        self._played: set[str] = set()
        self._live: set[str] = set()
        self._gate = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether there is a note to take."""
        return bool(self._taken)

    def take(self) -> list[dict[str, Any]]:
        """The notes since the last time, in order: what a `calls` event holds, answers as messages."""
        notes, self._taken = self._taken, []
        return notes

    def played(self, task_id: str) -> bool:
        """Whether all calls a task made were answered from the recording, and there was one."""
        return task_id in self._played and task_id not in self._live

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        told = metadata or {}
        node, tasks = _place(told)
        call = _Open(node, tasks, told.get(PROMPT), kwargs.get("invocation_params") or {}, messages[0])
        self._open[run_id] = call
        if self.recording is None:
            return
        recording.offer(None)
        call.key = recording.model_key(node, call.prompt, call.options, call.messages)
        if kwargs.get("batch_size", 1) == 1:  # of many asked at once nobody could tell which call an answer is for
            with self._gate:
                call.answer = self.recording.model(call.key, node)
            recording.offer(call.answer)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        super().on_llm_end(response)
        call, message = self._open.pop(run_id, None), message_of(response.generations)
        if not isinstance(call, _Open) or message is None:
            return
        played = call.answer is not None and call.answer.taken
        (self._played if played else self._live).update(call.tasks)
        self._taken.append(
            {
                "kind": "model",
                "node": call.node,
                # Only now: before the first token nobody waits for it.
                "key": call.key or recording.model_key(call.node, call.prompt, call.options, call.messages),
                "prompt": call.prompt,
                "model": message.response_metadata.get("model_name"),
                "answer": message,
                "recorded": played,
            }
        )

    def on_llm_error(
        self,
        error: BaseException,
        *,
        response: LLMResult | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_llm_error(error, response=response)
        call = self._open.pop(run_id, None)
        if call is not None:
            self._live.update(call.tasks)

    # Tools

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        node, tasks = _place(metadata or {})
        args = input_str if inputs is None else inputs
        self._open[run_id] = _OpenTool(node, tasks, (serialized or {}).get("name") or "tool", args)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        # What else than a message a tool gives, such as a Command, is noted, but cannot be given back.
        answered = isinstance(output, ToolMessage)
        self._tool_ended(run_id, _said(output) if answered else {"result": jsonable(output)}, whole=answered)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._tool_ended(run_id, {"error": type(error).__name__}, whole=False)

    def _tool_ended(self, run_id: UUID, outcome: Mapping[str, Any], *, whole: bool) -> None:
        call = self._open.pop(run_id, None)
        if not isinstance(call, _OpenTool):
            return
        self._live.update(call.tasks)
        args = jsonable(call.args)
        key = recording.tool_key(call.name, None if whole else "partly", args)
        self._tool(call.node, call.name, key, args, outcome)

    def knows_tool(self, name: str, version: str, args: dict[str, Any]) -> bool:
        """Whether the recording will answer a call of a built-in tool, so that nothing is done."""
        key = recording.tool_key(name, version, args)
        return self.recording is not None and self.recording.has_tool(key)

    def known_tool(self, name: str, version: str, args: dict[str, Any]) -> Mapping[str, Any] | None:
        """What the recording has for a call of a built-in tool: `{result}` or `{error}`."""
        if self.recording is None:
            return None
        key = recording.tool_key(name, version, args)
        with self._gate:
            found = self.recording.tool(key)
        if found is None:
            return None
        node, tasks = _place(_metadata())
        self._played.update(tasks)
        outcome = {part: found[part] for part in ("result", "error") if part in found}
        self._tool(node, name, key, args, outcome, recorded=True)
        return outcome

    def note_tool(self, name: str, version: str, args: dict[str, Any], outcome: Mapping[str, Any]) -> None:
        """Note what a call of a built-in tool came to: `{result}` or `{error}`."""
        node, tasks = _place(_metadata())
        self._live.update(tasks)
        self._tool(node, name, recording.tool_key(name, version, args), args, outcome)

    def fitted(self, graph: Graph) -> Graph:
        """The graph with tool nodes that ask the recording first; `graph` itself where there is nothing to ask."""
        if self.recording is None or not self.recording.tools:
            return graph
        nodes = {}
        for name, node in graph.nodes.items():
            bound: Any = node.bound
            if isinstance(bound, ToolNode):
                fitted: Any = self._asking_first(bound)
            elif isinstance(bound, Pregel):
                fitted = self.fitted(bound)
            else:
                continue
            if fitted is not bound:
                nodes[name] = node.copy({"bound": fitted})
        return graph.copy({"nodes": {**graph.nodes, **nodes}}) if nodes else graph

    def _asking_first(self, node: ToolNode) -> ToolNode:
        """The tool node built anew with its calls wrapped, round the wrapper it has. One of another class, or
        whose parts have other names by now, stays as it is, and its calls are made."""
        own: Any = node
        try:
            sync, wrapped = own._wrap_tool_call, own._awrap_tool_call
            errors, messages_key = own._handle_tool_errors, own._messages_key
        except AttributeError:
            return node
        if type(node) is not ToolNode:
            return node

        def call(request: Any, execute: Callable[[Any], Any]) -> Any:
            found = self._found(request.tool_call)
            if found is not None:
                return found
            return execute(request) if sync is None else sync(request, execute)

        async def acall(request: Any, execute: Callable[[Any], Any]) -> Any:
            found = self._found(request.tool_call)
            if found is not None:
                return found
            if wrapped is not None:
                return await wrapped(request, execute)
            if sync is None:
                return await execute(request)
            return sync(request, lambda asked: own._execute_tool_sync(asked, "tool_calls", asked.runtime.config))

        return ToolNode(
            list(node.tools_by_name.values()),
            name=node.name or "tools",
            tags=list(node.tags or ()),
            handle_tool_errors=errors,
            messages_key=messages_key,
            wrap_tool_call=call,
            awrap_tool_call=acall,
        )

    def _found(self, call: Mapping[str, Any]) -> ToolMessage | None:
        args = jsonable(call["args"])
        key = recording.tool_key(call["name"], None, args)
        assert self.recording is not None
        with self._gate:
            found = self.recording.tool(key)
        if found is None or not isinstance(found.get("message"), Mapping):
            return None
        node, tasks = _place(_metadata())
        self._played.update(tasks)
        self._tool(node, call["name"], key, args, {"message": found["message"]}, recorded=True)
        said = {part: found["message"].get(part) for part in ("content", "status", "artifact")}
        return ToolMessage(**said, name=call["name"], tool_call_id=call["id"])

    def _tool(
        self, node: str, name: str, key: str, args: Any, outcome: Mapping[str, Any], *, recorded: bool = False
    ) -> None:
        note = {"kind": "tool", "node": node, "key": key, "name": name, "args": args, **outcome, "recorded": recorded}
        self._taken.append(note)


def as_event(note: dict[str, Any], streamed: Collection[str | None]) -> dict[str, Any]:
    """A note as the data of a `calls` event. An answer that stands in the log already, delta by delta, is named by its
    message's id alone: `streamed` are the ids of those messages."""
    answer = note.pop("answer", None)
    if answer is None:
        return note
    if answer.id in streamed:
        return {**note, "message_id": answer.id}
    return {**note, "answer": delta(answer)}


def _said(message: ToolMessage) -> dict[str, Any]:
    told = {"content": jsonable(message.content), "status": message.status, "artifact": jsonable(message.artifact)}
    return {"message": told}


def _metadata() -> Mapping[str, Any]:
    try:
        return get_config().get("metadata") or {}
    except RuntimeError:  # called outside a graph
        return {}


def _place(metadata: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The node a call is made in, as a path where graphs are within graphs, and the ids of its tasks."""
    parts = [part.partition(":") for part in str(metadata.get("langgraph_checkpoint_ns") or "").split("|") if part]
    return "/".join(name for name, _, _ in parts), tuple(task_id for _, _, task_id in parts)


# --- The run under way --------------------------------------------------------------------------------------------

_NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)


@asynccontextmanager
async def noting(notes: Notes) -> AsyncIterator[None]:
    """What is called within finds the run's notes; where they have a recording, any LangChain model asks it first."""
    token = _NOTES.set(notes)
    try:
        if notes.recording is None:
            yield
        else:
            with _cache_installed():
                yield
    finally:
        _NOTES.reset(token)


def current() -> Notes | None:
    """The notes of the run that goes on in this context."""
    return _NOTES.get()


class _Recorded(BaseCache):
    """LangChain's cache of answers, as far as re-runs go. Whatever else is asked goes to the cache there was before."""

    def __init__(self, before: BaseCache | None) -> None:
        self.before = before
        self.users = 0

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        answer = recording.taken()
        if answer is not None:
            return list(answer.result().generations)
        return self.before.lookup(prompt, llm_string) if self.before else None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if self.before:
            self.before.update(prompt, llm_string, return_val)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        answer = recording.taken()
        if answer is not None:
            return list(answer.result().generations)
        return await self.before.alookup(prompt, llm_string) if self.before else None

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        if self.before:
            await self.before.aupdate(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        if self.before:
            self.before.clear(**kwargs)


@contextmanager
def _cache_installed() -> Iterator[None]:
    """The cache above, for as long as a re-run needs it: with one in place LangChain writes out every message of every
    call in the process, a millisecond for twenty."""
    cache = get_llm_cache()
    if not isinstance(cache, _Recorded):
        cache = _Recorded(cache)
        set_llm_cache(cache)
    cache.users += 1
    try:
        yield
    finally:
        cache.users -= 1
        if cache.users == 0 and get_llm_cache() is cache:
            set_llm_cache(cache.before)
