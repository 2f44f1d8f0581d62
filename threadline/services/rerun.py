"""Re-runs: execute again from any checkpoint, with changes, on a new branch or in a session of its own.

`Reruns.plan` checks everything and writes nothing; what it gives, `Runs.start` can start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import StateSnapshot
from langgraph_sdk.auth.exceptions import HTTPException as Refusal
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from threadline.domain import ports
from threadline.domain.errors import Conflict, Forbidden, Invalid, Missing
from threadline.domain.records import ENDED, Caller, Place, Run, Thread
from threadline.services import edits, invocation
from threadline.services.graphs import Graph, Graphs
from threadline.services.outline import graph_context
from threadline.services.payload import text_of
from threadline.services.runs import Runs, StartRun
from threadline.services.states import States
from threadline.services.threads import Threads

Source = Literal["recorded", "live"]
Into = Literal["branch", "session"]
_CHOICES = ("model", "temperature", "prompts")
_INHERITED = ("interrupt_before", "interrupt_after")


@dataclass(frozen=True, slots=True)
class Edit:
    """Values to write to the state, as if `as_node` had; None: as the node that wrote last."""

    values: dict[str, Any]
    as_node: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a re-run does otherwise. None leaves a thing as it was.

    `prompts`: by name, a version or `{text}`. `message`: what is asked in place of the turn's question. `tools` and
    `models`: whether calls that stand in the recording are answered from it. `answers`: by node, what its next model
    calls are answered with, as messages `{content, tool_calls}`.
    """

    model: str | None = None
    temperature: float | None = None
    prompts: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    message: str | None = None
    state: Edit | None = None
    tools: Source = "recorded"
    models: Source = "recorded"
    answers: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """The same in JSON types, what was left as it was left out."""
        plain = Changes()
        return {name: value for name, value in asdict(self).items() if value != getattr(plain, name)}


UNCHANGED = Changes()


@dataclass(frozen=True, slots=True)
class Plan:
    """A re-run that can be started. A session of its own takes over the checkpoints of `line`, if there are any, and
    the turns that did not end at one of those in `beside`."""

    start: StartRun
    line: Sequence[str]
    beside: Sequence[str]


class Reruns:
    """Plans and starts re-runs."""

    def __init__(
        self,
        *,
        threads: Threads,
        runs: Runs,
        states: States,
        records: ports.Runs,
        graphs: Graphs,
        saver: BaseCheckpointSaver[Any],
        lines: ports.Lines,
        known_model: Callable[[str], Awaitable[None]],
    ) -> None:
        """`known_model` raises Invalid for a model that the service's model server does not have."""
        self._threads = threads
        self._runs = runs
        self._states = states
        self._records = records
        self._graphs = graphs
        self._saver = saver
        self._lines = lines
        self._known_model = known_model

    async def start(
        self,
        session_id: str,
        checkpoint_id: str,
        caller: Caller,
        changes: Changes = UNCHANGED,
        *,
        into: Into = "branch",
    ) -> Run:
        """Execute again from a checkpoint. Raises Invalid, Missing or Conflict, and then nothing has changed."""
        thread = await self._threads.check(session_id, caller, "read")
        if changes.state is not None:
            await self._threads.check(session_id, caller, "update")
        plan = await self.plan(thread, checkpoint_id, caller, changes, into=into)
        if into == "branch":
            return await self._runs.start(plan.start)
        if self._runs.busy(thread.thread_id):
            raise Conflict("The session is busy with another message.")
        if not plan.line:
            return await self._runs.start(replace(plan.start, thread_id=None))
        new = await self._states.copy_line(thread, caller, plan.line, without=plan.beside)
        try:
            return await self._runs.start(replace(plan.start, thread_id=new.thread_id))
        except BaseException:
            await self._runs.remove(new)
            raise

    async def start_run(
        self, run_id: str, caller: Caller, changes: Changes = UNCHANGED, *, into: Into = "branch"
    ) -> Run:
        """Execute a run again, from where it began. Raises Invalid, Missing or Conflict."""
        run = await self._runs.check(run_id, caller, "read")
        if run.status not in ENDED:
            raise Conflict("The run is still going on. Wait for its end, or cancel it.")
        async for event in self._runs.follow(run):
            if event.type == "checkpoints" and not event.ns:
                return await self.start(run.thread_id, event.data["checkpoint_id"], caller, changes, into=into)
        raise Conflict("The run left no checkpoint to begin again from.")

    async def plan(
        self, thread: Thread, checkpoint_id: str, caller: Caller, changes: Changes = UNCHANGED, *, into: Into = "branch"
    ) -> Plan:
        """What to start, all of it checked. Raises Invalid, Missing (a checkpoint, a graph) or Conflict."""
        asked = await self._tuple(thread.thread_id, checkpoint_id)
        if asked is None:
            raise Missing(f"This session has no checkpoint {checkpoint_id}.")
        if changes.message is not None and changes.state is not None:
            raise Invalid("changes: give either message or state")
        origin = await self._origin(thread, asked, caller)
        like = origin if origin is not None and origin.graph_id in self._graphs.ids else None
        call: dict[str, Any] = {
            "input": None,
            "command": None,
            "rerun_of": checkpoint_id,
            "changes": {**changes.told(), **({"into": into} if into != "branch" else {})},
            "recording": {"run_ids": await self._family(thread, origin, into), "after": checkpoint_id},
            **({name: origin.kwargs[name] for name in _INHERITED if origin.kwargs.get(name)} if origin else {}),
        }
        async with self._open(thread, caller, like) as graph:
            await _check_nodes(graph, changes)
            config, context = await self._chosen(graph, origin, changes)
            if changes.message is None:
                base = asked
                call["message"] = await self._unchanged(graph, asked, origin, changes)
                if changes.state is not None:
                    call["edit"] = asdict(changes.state)
            else:
                base, beginning = await self._before_turn(thread.thread_id, asked)
                call["message"] = changes.message
                call["input"] = _asked_anew(await self._origin(thread, beginning, caller), changes.message)
        call |= {"config": config, "context": context}
        start_id = base.config["configurable"]["checkpoint_id"]
        line, beside = list[str](), list[str]()
        if into == "session" and not (changes.message is not None and base.metadata.get("source") == "input"):
            line, beside = _line(await self._lines.places(thread.thread_id), start_id)
        if line or into == "branch":
            call["checkpoint"] = {"checkpoint_id": start_id}
        start = StartRun(caller, thread_id=thread.thread_id, call=call, like=like, shown=True)
        return Plan(start, line, [*beside, checkpoint_id])  # the turn that is executed again does not come along

    async def _unchanged(
        self, graph: Graph, asked: CheckpointTuple, origin: Run | None, changes: Changes
    ) -> str | None:
        """The question a re-run answers that asks nothing new. Raises Conflict if nothing is next."""
        config = _config(asked)
        if changes.state is None:
            snapshot: StateSnapshot = await graph.aget_state(config)
        else:
            snapshot = await edits.tried(graph, config, changes.state.values, as_node=changes.state.as_node)
        if not snapshot.next:
            raise Conflict("Nothing is next after this checkpoint, so there is nothing to execute again.")
        if asked.metadata.get("source") == "input" and origin is not None:
            return origin.kwargs.get("message")
        messages = snapshot.values.get("messages") or [] if isinstance(snapshot.values, dict) else []
        human = [message for message in messages if getattr(message, "type", None) == "human"]
        return text_of(human[-1]) if human else None

    async def _before_turn(self, thread_id: str, asked: CheckpointTuple) -> tuple[CheckpointTuple, CheckpointTuple]:
        """Where to ask a turn anew from, and the checkpoint that took in its question. Raises Conflict."""
        place: CheckpointTuple | None = asked
        while place is not None and place.metadata.get("source") != "input":
            place = await self._parent(thread_id, place)
        if place is None:
            raise Conflict("The steps before this message are gone, so that it cannot be asked anew.")
        # A new input takes the place of one that has not been taken up: where there is nothing before, that will do.
        return await self._parent(thread_id, place) or place, place

    async def _chosen(
        self, graph: Graph, origin: Run | None, changes: Changes
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config and the context of the re-run: the first run's, with what was chosen. Raises Invalid."""
        config, context = (_mapping(origin.kwargs.get(name)) if origin else {} for name in ("config", "context"))
        chosen = {name: value for name in _CHOICES if (value := getattr(changes, name)) not in (None, {})}
        if not chosen:
            return config, context
        known = _choosable(graph)
        for name in chosen:
            if name not in known:
                raise Invalid(f"{name}: the graph lets nobody choose it; its context schema has no {name}")
        before = {**context, **_mapping(config.get("configurable"))}
        if "prompts" in chosen:
            chosen["prompts"] = {**_mapping(before.get("prompts")), **chosen["prompts"]}
        schema: Any = graph.context_schema
        try:
            TypeAdapter(schema).validate_python({k: before[k] for k in before if k in known} | chosen)
        except PydanticUserError:  # nothing can be told of it but its names
            pass
        except ValidationError as error:
            wrong = [item for item in error.errors(include_url=False, include_input=False) if item["loc"][:1]]
            ours = [item for item in wrong if item["loc"][0] in chosen]
            if ours:
                raise Invalid("; ".join(map(_reason, ours))) from error
        if "model" in chosen and known["model"].get("threadline_type") == "model":
            await self._known_model(chosen["model"])
        if context:
            context |= chosen
        return {**config, "configurable": {**_mapping(config.get("configurable")), **chosen}}, context or chosen

    async def _family(self, thread: Thread, origin: Run | None, into: Into) -> list[str]:
        """The runs a recording is made of: the one that went on from the checkpoint, the others of its turn, and what
        was re-run of them. Only what has ended counts, or will have ended by then."""
        if origin is None:
            return []
        there = await self._records.list(thread_id=origin.thread_id)
        here = [] if thread.thread_id == origin.thread_id else await self._records.list(thread_id=thread.thread_id)
        queued = origin.thread_id == thread.thread_id and into == "branch"
        family = [origin.run_id] if queued or origin.status in ENDED else []
        known = {origin.run_id}
        for run in [*there, *here]:
            sources = _mapping(run.kwargs.get("recording")).get("run_ids") or ()
            of_it = run.run_id in known or any(source in known for source in sources if isinstance(source, str))
            if run.status in ENDED and (run.turn_id == origin.turn_id or of_it):
                known.add(run.run_id)
                family.append(run.run_id)
        return list(dict.fromkeys(family))

    async def _origin(self, thread: Thread, place: CheckpointTuple, caller: Caller) -> Run | None:
        """The run that made a checkpoint, if it is still there. A copy names runs of other threads: they count if the
        caller may read them."""
        run_id = place.metadata.get("run_id")
        run = await self._records.get(run_id) if isinstance(run_id, str) else None
        if run is None or run.thread_id == thread.thread_id:
            return run
        try:
            return await self._runs.check(run.run_id, caller, "read")
        except (Missing, Invalid, Forbidden, Refusal):
            return None

    def _open(self, thread: Thread, caller: Caller, like: Run | None) -> AbstractAsyncContextManager[Graph]:
        if like is None:
            return self._graphs.of_thread(thread, caller)
        return self._graphs.of_run(like, invocation.config_of(like, callbacks=[]))

    async def _parent(self, thread_id: str, place: CheckpointTuple) -> CheckpointTuple | None:
        if place.parent_config is None:
            return None
        return await self._tuple(thread_id, place.parent_config["configurable"]["checkpoint_id"])

    async def _tuple(self, thread_id: str, checkpoint_id: str) -> CheckpointTuple | None:
        return await self._saver.aget_tuple(
            {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}
        )


def _line(places: Sequence[Place], end: str) -> tuple[list[str], list[str]]:
    """The checkpoints from `end` back, and the others."""
    parents = {place.checkpoint_id: place.parent_id for place in places}
    line: list[str] = []
    place: str | None = end
    while place is not None and place in parents:
        line.append(place)
        place = parents.pop(place)
    return line, list(parents)


def _choosable(graph: Graph) -> Mapping[str, Any]:
    """What a graph lets its callers choose: the schema of each, or `{}` where it has none to tell."""
    try:
        return (graph_context(graph) or {}).get("properties") or {}
    except PydanticUserError:  # such as a TypedDict of `typing` before Python 3.12
        return {name: {} for name in getattr(graph.context_schema, "__annotations__", ())}


def _config(place: CheckpointTuple) -> RunnableConfig:
    at = place.config["configurable"]
    return {"configurable": {key: at[key] for key in ("thread_id", "checkpoint_ns", "checkpoint_id")}}


async def _check_nodes(graph: Graph, changes: Changes) -> None:
    """Raises Invalid for a node the graph does not have."""
    if changes.state is not None and changes.state.as_node is not None:
        _check_node("state.as_node", changes.state.as_node, set(graph.nodes))
    known = {name for name in graph.nodes if name != "__start__"}
    if changes.answers:
        async for path, inner in graph.aget_subgraphs(recurse=True):
            names = {name for name in getattr(inner, "nodes", ()) if name != "__start__"}
            known |= names | {f"{path.replace('|', '/')}/{name}" for name in names}
    for node in changes.answers:
        _check_node("answers", node, known)


def _check_node(where: str, node: str, known: set[str]) -> None:
    if node not in known:
        raise Invalid(f"{where}: the graph has no node {node}; it has {', '.join(sorted(known))}")


def _mapping(given: Any) -> dict[str, Any]:
    """What a run was asked, if it is what it should be: an imported one may say anything."""
    return dict(given) if isinstance(given, Mapping) else {}


def _asked_anew(first: Run | None, message: str) -> dict[str, Any]:
    """The input of the turn's first run with the new question in the place of the old."""
    before = first.kwargs.get("input") if first is not None else None
    given = before if isinstance(before, Mapping) else {}
    messages = given.get("messages") or []
    listed = list(messages) if isinstance(messages, list) else [messages]
    for index in range(len(listed) - 1, -1, -1):
        try:
            (known,) = convert_to_messages([listed[index]])
        except (ValueError, TypeError, KeyError, NotImplementedError):
            continue
        if known.type == "human":
            return {**given, "messages": [*listed[:index], {"role": "user", "content": message}, *listed[index + 1 :]]}
    return {**given, "messages": [*listed, {"role": "user", "content": message}]}


def _reason(item: Any) -> str:
    place = [str(part) for part in item["loc"] if isinstance(part, int | str) and not str(part).startswith("function-")]
    kinds = {"str", "PromptText", "constrained-str", "constrained-float", "float"}
    return f"{'.'.join(part for part in place if part not in kinds)}: {item['msg'].removeprefix('Value error, ')}"
