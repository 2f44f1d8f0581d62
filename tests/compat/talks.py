"""What the two servers are asked: talks, each on threads of its own, which together reach every endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from tests.compat.exchanges import Asked, SentEvent

Talk = Callable[[Asked], Awaitable[None]]

NOWHERE = "00000000-0000-4000-8000-000000000000"
AGENT = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
PARENT = "0b226d00-e4ec-5b58-8e33-88f4bd4debe7"
MODES = ("values", "updates", "messages", "messages-tuple", "custom", "debug", "tasks", "checkpoints", "events")

CLOSED = {"connection": "close"}
"""Where `langgraph dev` fails it closes the connection, which must be no other request's."""

TALKS: dict[str, Talk] = {}


def talk(ask: Talk) -> Talk:
    TALKS[ask.__name__] = ask
    return ask


def saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text, "id": f"said-{text}"}]}


def run(text: str | None = "hi", **options: Any) -> dict[str, Any]:
    return {"assistant_id": "agent", "input": saying(text) if text is not None else None, **options}


async def thread(ask: Asked, **body: Any) -> str:
    thread_id: str = (await ask("a thread", "POST", "/threads", body))["thread_id"]
    return thread_id


async def done(ask: Asked, thread_id: str, text: str | None = "hi", **options: Any) -> Any:
    """The state after a turn, which other talks compare."""
    return await ask("a turn", "POST", f"/threads/{thread_id}/runs/wait", run(text, **options))


async def forever(ask: Asked, thread_id: str, **options: Any) -> str:
    """A run that has reached its node and stays there."""
    body = run("forever", stream_mode=["custom"], **options)
    path = f"/threads/{thread_id}/runs/stream"
    frames = await ask.until("a run that goes on", "POST", path, body, lambda frame: frame.event == "custom")
    run_id: str = frames[0].data["run_id"]
    return run_id


async def gone(ask: Asked, path: str) -> None:
    """Until it answers 404; asked past the record, since how often is a matter of time."""
    async with asyncio.timeout(20):
        while (await ask.http.get(path)).status_code != 404:
            await asyncio.sleep(0.05)


async def standing(ask: Asked, thread_id: str, status: str) -> None:
    """Until the thread has the status."""
    async with asyncio.timeout(20):
        while (await ask.http.get(f"/threads/{thread_id}")).json()["status"] != status:
            await asyncio.sleep(0.05)


@talk
async def probes(ask: Asked) -> None:
    await ask("ok", "GET", "/ok")
    await ask("ok with its database", "GET", "/ok?check_db=1")
    await ask("root", "GET", "/", headers={"accept": "application/json"})
    await ask("info", "GET", "/info")
    await ask("wrong method", "DELETE", "/info")
    await ask("no such path", "GET", "/nothing/here")
    studio = {"origin": "https://smith.langchain.com", "access-control-request-method": "POST"}
    await ask("preflight", "OPTIONS", "/assistants/search", headers=studio)
    private = {**studio, "access-control-request-private-network": "true"}
    await ask("preflight into a private network", "OPTIONS", "/assistants/search", headers=private)
    for name in ("docs", "openapi.json", "metrics"):
        answer = await ask.http.get(f"/{name}")
        kind = answer.headers["content-type"].partition(";")[0]
        ask.exchanges.append(type(ask.exchanges[0])(name, f"GET /{name}", answer.status_code, {}, kind))


@talk
async def assistants(ask: Asked) -> None:
    await ask("system", "POST", "/assistants/search", {"metadata": {"created_by": "system"}, "sort_by": "name"})
    plain = {"content": '{"graph_id": "agent", "metadata": {"created_by": "system"}}'}
    await ask("as text", "POST", "/assistants/search", headers={"content-type": "text/plain"}, **plain)
    await ask("get", "GET", f"/assistants/{AGENT}")
    made = await ask(
        "create",
        "POST",
        "/assistants",
        {
            "graph_id": "agent",
            "name": "mine",
            "metadata": {"talk": "assistants"},
            "config": {"recursion_limit": 9, "configurable": {"a": 1}},
            "description": "of a talk",
        },
    )
    path = f"/assistants/{made['assistant_id']}"
    again = {"graph_id": "agent", "assistant_id": made["assistant_id"]}
    await ask("duplicate", "POST", "/assistants", again)
    await ask("do nothing", "POST", "/assistants", {**again, "if_exists": "do_nothing"})
    await ask(
        "both", "POST", "/assistants", {"graph_id": "agent", "config": {"configurable": {"a": 1}}, "context": {"b": 1}}
    )
    await ask("unknown graph", "POST", "/assistants", {"graph_id": "nope"})
    await ask("no graph", "POST", "/assistants", {})
    await ask("patch", "PATCH", path, {"name": "mine, later", "metadata": {"more": True}})
    await ask("patch context", "PATCH", path, {"context": {"b": 2}})
    await ask("versions", "POST", f"{path}/versions", {})
    await ask("latest", "POST", f"{path}/latest", {"version": 2})
    await ask("search", "POST", "/assistants/search", {"metadata": {"talk": "assistants"}})
    await ask("select", "POST", "/assistants/search", {"name": "LATER", "select": ["name", "version"]})
    await ask(
        "page", "POST", "/assistants/search", {"metadata": {"created_by": "system"}, "limit": 1, "sort_by": "name"}
    )
    await ask("bad limit", "POST", "/assistants/search", {"limit": 0})
    await ask("count", "POST", "/assistants/count", {"metadata": {"talk": "assistants"}})
    await ask("delete", "DELETE", path)
    await ask("deleted", "GET", path)
    await ask("delete again", "DELETE", path)
    await ask("unknown", "GET", f"/assistants/{NOWHERE}")
    await ask("no uuid", "PATCH", "/assistants/nope", {"name": "x"})


@talk
async def graphs(ask: Asked) -> None:
    for graph, assistant_id in (("agent", AGENT), ("parent", PARENT)):
        for part in ("graph", "graph?xray=true", "graph?xray=1", "schemas", "subgraphs", "subgraphs?recurse=true"):
            await ask(f"{graph}/{part}", "GET", f"/assistants/{assistant_id}/{part}")
    await ask("by name", "GET", "/assistants/agent/graph")
    await ask("one subgraph", "GET", f"/assistants/{PARENT}/subgraphs/child")
    await ask("bad depth", "GET", f"/assistants/{AGENT}/graph?xray=0")
    await ask("unknown", "GET", f"/assistants/{NOWHERE}/graph")


@talk
async def threads(ask: Asked) -> None:
    mark = {"talk": "threads"}
    thread_id = await thread(ask, metadata=mark)
    path = f"/threads/{thread_id}"
    await ask("get", "GET", path)
    await ask("patch", "PATCH", path, {"metadata": {"more": [1, 2]}})
    await ask("duplicate", "POST", "/threads", {"thread_id": thread_id})
    await ask("do nothing", "POST", "/threads", {"thread_id": thread_id, "if_exists": "do_nothing"})
    await ask("bad id", "POST", "/threads", {"thread_id": "nope"})
    await ask("empty state", "GET", f"{path}/state")
    await ask("empty history", "GET", f"{path}/history")
    await done(ask, thread_id)
    await ask("get after a run", "GET", path)
    other = await thread(ask, metadata=mark)
    await ask("search", "POST", "/threads/search", {"metadata": mark, "sort_by": "created_at"})
    await ask("ascending", "POST", "/threads/search", {"metadata": mark, "sort_by": "created_at", "sort_order": "asc"})
    await ask("one page", "POST", "/threads/search", {"metadata": mark, "limit": 1, "sort_by": "created_at"})
    await ask("by id", "POST", "/threads/search", {"ids": [other]})
    await ask("by status", "POST", "/threads/search", {"metadata": mark, "status": "interrupted"})
    select = {"select": ["thread_id", "status"], "extract": {"said": "values.messages[-1].content"}}
    await ask("select and extract", "POST", "/threads/search", {"ids": [thread_id], **select})
    await ask("graph", "POST", "/threads/search", {"metadata": {**mark, "graph_id": "agent"}})
    await ask("bad status", "POST", "/threads/search", {"status": "nope"})
    await ask("bad limit", "POST", "/threads/search", {"limit": 1001})
    await ask("count", "POST", "/threads/count", {"metadata": mark})
    await ask("with a time to live", "POST", "/threads", {"ttl": {"ttl": 60, "strategy": "delete"}})
    made = await ask("copy", "POST", f"{path}/copy")
    await ask("state of the copy", "GET", f"/threads/{made['thread_id']}/state")
    await ask("delete", "DELETE", path)
    await ask("deleted", "GET", path)
    await ask("delete again", "DELETE", path)
    for name, method, tail, body in (
        ("patch unknown", "PATCH", "", {"metadata": {}}),
        ("copy unknown", "POST", "/copy", None),
        ("state unknown", "GET", "/state", None),
        ("update unknown", "POST", "/state", {"values": {}}),
        ("history unknown", "POST", "/history", {}),
        ("runs unknown", "GET", "/runs", None),
    ):
        await ask(name, method, f"/threads/{NOWHERE}{tail}", body)
    await ask("no uuid", "GET", "/threads/nope")
    await ask("prune", "POST", "/threads/prune", {"thread_ids": [other]})


@talk
async def supersteps(ask: Asked) -> None:
    steps = [
        {"updates": [{"values": saying("one"), "as_node": "__input__"}]},
        {"updates": [{"values": saying("two"), "as_node": "agent"}]},
    ]
    body = {"metadata": {"graph_id": "agent"}, "supersteps": steps}
    made = await ask("with a past", "POST", "/threads", body)
    await ask("its past", "POST", f"/threads/{made['thread_id']}/history", {"limit": 10})


@talk
async def states(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}"
    await ask("never ran", "POST", f"{path}/state", {"values": saying("x")})
    await done(ask, thread_id, "weather")
    state = await ask("state", "GET", f"{path}/state")
    past = await ask("all of the past", "POST", f"{path}/history", {"limit": 100})
    await ask("past", "GET", f"{path}/history?limit=2")
    await ask("past by default", "POST", f"{path}/history", {})
    await ask("past of steps", "POST", f"{path}/history", {"limit": 100, "metadata": {"step": 1}})
    before = {"configurable": {"checkpoint_id": past[1]["checkpoint_id"]}}
    await ask("before", "POST", f"{path}/history", {"limit": 2, "before": before})
    await ask(
        "before a checkpoint", "POST", f"{path}/history", {"limit": 2, "before": past[1]["checkpoint"]}, headers=CLOSED
    )
    await ask("at", "GET", f"{path}/state/{past[2]['checkpoint_id']}")
    await ask("at, by body", "POST", f"{path}/state/checkpoint", {"checkpoint": past[2]["checkpoint"]})
    await ask("at an unknown one", "GET", f"{path}/state/1efe0000-0000-6000-8000-000000000000")
    await ask("update", "POST", f"{path}/state", {"values": saying("more"), "as_node": "agent"})
    await ask("updated", "GET", f"{path}/state")
    fork = {"values": saying("else"), "checkpoint_id": past[2]["checkpoint_id"], "as_node": "agent"}
    await ask("fork", "POST", f"{path}/state", fork)
    await ask("forked", "GET", f"{path}/state")
    await ask("fork by object", "POST", f"{path}/state", {"values": None, "checkpoint": state["checkpoint"]})
    await ask("unknown node", "POST", f"{path}/state", {"values": saying("x"), "as_node": "nope"})
    await ask("values as a list", "POST", f"{path}/state", {"values": [1]})
    await ask("thread", "GET", path)


@talk
async def subgraph_states(ask: Asked) -> None:
    thread_id = await thread(ask)
    await done(ask, thread_id, "approve", assistant_id="parent")
    path = f"/threads/{thread_id}"
    await ask("state", "GET", f"{path}/state")
    whole = await ask("with subgraphs", "GET", f"{path}/state?subgraphs=true")
    inner = whole["tasks"][0]["state"]["checkpoint"]
    await ask("of the subgraph", "POST", f"{path}/state/checkpoint", {"checkpoint": inner})
    await ask("past of the subgraph", "POST", f"{path}/history", {"limit": 10, "checkpoint": inner})
    await ask("thread", "GET", path)
    await ask("answered", "POST", f"{path}/runs/wait", run(None, assistant_id="parent", command={"resume": "yes"}))


def _streams() -> None:
    for text in ("hi", "weather", "approve", "boom"):
        for mode in MODES:
            _stream(f"stream_{mode}_{text}", text, stream_mode=[mode])
    for mode in MODES:
        _stream(f"subgraphs_{mode}", "weather", assistant_id="parent", stream_mode=[mode], stream_subgraphs=True)
        _stream(f"subgraphs_{mode}_hidden", "weather", assistant_id="parent", stream_mode=[mode])
    together = ["values", "updates", "messages-tuple", "custom", "tasks"]
    _stream("several_modes", "weather", stream_mode=together)
    _stream("several_modes_ask_below", "approve", assistant_id="parent", stream_mode=together, stream_subgraphs=True)
    _stream("default_mode", "hi")
    _stream("no_mode", "hi", stream_mode=[])
    _stream("mode_as_text", "hi", stream_mode="updates")


def _stream(name: str, text: str, **options: Any) -> None:
    async def ask_for_it(ask: Asked) -> None:
        thread_id = await thread(ask)
        await ask("stream", "POST", f"/threads/{thread_id}/runs/stream", run(text, **options))
        await ask("thread", "GET", f"/threads/{thread_id}")

    TALKS[name] = ask_for_it


_streams()


@talk
async def resumable(ask: Asked) -> None:
    thread_id = await thread(ask)
    body = run("weather", stream_mode=["values", "updates", "custom"], stream_resumable=True)
    frames = await ask("stream", "POST", f"/threads/{thread_id}/runs/stream", body)
    path = f"/threads/{thread_id}/runs/{frames[0].data['run_id']}"
    for last in ("-1", "0", frames[0].id, frames[-1].id):
        name = "last" if last == frames[-1].id else "first" if last == frames[0].id else last
        await ask(f"after {name}", "GET", f"{path}/stream", headers={"last-event-id": last})
    await ask("from now on", "GET", f"{path}/stream")
    only = await ask("one mode", "GET", f"{path}/stream?stream_mode=updates", headers={"last-event-id": "0"})
    assert only
    await ask("join", "GET", f"{path}/join")


@talk
async def not_resumable(ask: Asked) -> None:
    thread_id = await thread(ask)
    frames = await ask("stream", "POST", f"/threads/{thread_id}/runs/stream", run())
    path = f"/threads/{thread_id}/runs/{frames[0].data['run_id']}"
    await ask("again", "GET", f"{path}/stream")


@talk
async def heartbeats(ask: Asked) -> None:
    """While nothing comes; all at once, since each takes its time."""
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    path = f"/threads/{thread_id}"
    queued = await ask("queued", "POST", f"{path}/runs", run())
    await asyncio.gather(
        ask.heartbeat("of a stream", "POST", f"{path}/runs/stream", run(stream_mode=["custom"])),
        ask.heartbeat("of a stream without a thread", "POST", "/runs/stream", run("forever", on_disconnect="cancel")),
        ask.heartbeat("of a stream that is joined", "GET", f"{path}/runs/{run_id}/stream"),
        ask.heartbeat("of a stream that waits", "GET", f"{path}/runs/{queued['run_id']}/stream"),
        ask.heartbeat("of the thread", "GET", f"{path}/stream"),
        ask.heartbeat("of the protocol", "POST", f"{path}/stream/events", {"channels": ["values"]}),
        ask.heartbeat("of an answer", "POST", f"{path}/runs/wait", run()),
        ask.heartbeat("of an answer that is joined", "GET", f"{path}/runs/{run_id}/join"),
    )
    await ask("cancel", "POST", f"{path}/runs/{run_id}/cancel?wait=true")
    ask.exchanges.sort(key=lambda exchange: exchange.name)


def _joined_live(name: str, *, last: str | None = None, query: str = "", **options: Any) -> None:
    async def ask_for_it(ask: Asked) -> None:
        """The reader is there before the run begins: it waits behind another."""
        thread_id = await thread(ask)
        path = f"/threads/{thread_id}/runs"
        first = await forever(ask, thread_id)
        made = await ask("a run that waits", "POST", path, run("weather", **options))
        headers = {"last-event-id": last} if last is not None else {}
        live = f"{path}/{made['run_id']}"
        reader = asyncio.ensure_future(ask("live", "GET", f"{live}/stream{query}", headers=headers))
        answer = asyncio.ensure_future(ask("live answer", "GET", f"{live}/join"))
        await asyncio.sleep(0.5)  # the readers are there; a server gives no sign of it
        await ask("cancel", "POST", f"{path}/{first}/cancel")
        await asyncio.wait_for(asyncio.gather(reader, answer), 20)
        await ask("over", "GET", f"{live}/stream", headers=headers)
        ask.exchanges.sort(key=lambda exchange: exchange.name)

    TALKS[f"joined_live_{name}"] = ask_for_it


_some = ["values", "updates", "custom"]
_joined_live("plain", stream_mode=_some)
_joined_live("default_mode")
_joined_live("messages", stream_mode=["messages-tuple"])
_joined_live("from_start", last="-1", stream_mode=_some)
_joined_live("one_mode", query="?stream_mode=updates", stream_mode=_some)
_joined_live("another_mode", query="?stream_mode=updates", stream_mode=["values"])
_joined_live("resumable", stream_mode=_some, stream_resumable=True)
_joined_live("subgraphs", assistant_id="parent", stream_mode=["updates"], stream_subgraphs=True)


@talk
async def joined_while_it_goes_on(ask: Asked) -> None:
    """What came before the reader is not shown again."""
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    path = f"/threads/{thread_id}/runs/{run_id}"
    readers = [asyncio.ensure_future(ask(f"live {number}", "GET", f"{path}/stream")) for number in (1, 2)]
    await asyncio.sleep(0.5)
    await ask("cancel", "POST", f"{path}/cancel?wait=true")
    await asyncio.wait_for(asyncio.gather(*readers), 20)
    ask.exchanges.sort(key=lambda exchange: exchange.name)


@talk
async def waiting(ask: Asked) -> None:
    thread_id = await thread(ask)
    await ask("wait", "POST", f"/threads/{thread_id}/runs/wait", run())
    await ask("asked", "POST", f"/threads/{thread_id}/runs/wait", run("approve"))
    await ask("asked thread", "GET", f"/threads/{thread_id}")
    await ask("asked state", "GET", f"/threads/{thread_id}/state")
    await ask("asked again", "POST", f"/threads/{thread_id}/runs/wait", run(None))
    await ask("answered", "POST", f"/threads/{thread_id}/runs/wait", run(None, command={"resume": "yes"}))
    await ask("answered thread", "GET", f"/threads/{thread_id}")
    await ask("failed", "POST", f"/threads/{thread_id}/runs/wait", run("boom"))
    await ask("failed thread", "GET", f"/threads/{thread_id}")
    await ask("failed state", "GET", f"/threads/{thread_id}/state")
    await ask("after the failure", "POST", f"/threads/{thread_id}/runs/wait", run("on"))


@talk
async def background(ask: Asked) -> None:
    thread_id = await thread(ask)
    body = run(metadata={"team": "a"}, config={"tags": ["t"], "configurable": {"c": 1}})
    made = await ask("create", "POST", f"/threads/{thread_id}/runs", body)
    path = f"/threads/{thread_id}/runs/{made['run_id']}"
    await ask("join", "GET", f"{path}/join")
    await ask("get", "GET", path)
    await ask("list", "GET", f"/threads/{thread_id}/runs")
    await ask("list pending", "GET", f"/threads/{thread_id}/runs?status=pending&limit=5&offset=0")
    await ask("select", "GET", f"/threads/{thread_id}/runs?select=run_id&select=status")
    await ask("cancel when over", "POST", f"{path}/cancel")
    await ask("delete", "DELETE", path)
    await ask("deleted", "GET", path)
    await ask("delete again", "DELETE", path)
    await ask("state stays", "GET", f"/threads/{thread_id}/state")


@talk
async def stateless(ask: Asked) -> None:
    await ask("stream", "POST", "/runs/stream", run(stream_mode=["updates"]))
    await ask("wait", "POST", "/runs/wait", run())
    await ask("failed", "POST", "/runs/wait", run("boom"))
    made = await ask("create", "POST", "/runs", run(on_completion="keep"))
    await ask("join", "GET", f"/threads/{made['thread_id']}/runs/{made['run_id']}/join")
    await ask("kept", "GET", f"/threads/{made['thread_id']}")
    await ask("batch", "POST", "/runs/batch", [run("one"), run("two")])


@talk
async def breakpoints(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}/runs/stream"
    modes = ["values", "updates"]
    await ask("before", "POST", path, run(interrupt_before=["ask"], stream_mode=modes))
    await ask("stands", "GET", f"/threads/{thread_id}")
    await ask("state", "GET", f"/threads/{thread_id}/state")
    await ask("on", "POST", path, run(None, stream_mode=modes))
    await ask("after all", "POST", path, run("next", interrupt_after="*", stream_mode=modes))
    await ask("before all", "POST", path, run("last", interrupt_before="*", stream_mode=modes))


@talk
async def commands(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}/runs/stream"
    command = {"update": saying("by command"), "goto": "ask"}
    await ask("goto and update", "POST", path, run(None, command=command, stream_mode=["updates"]))
    await ask("state", "GET", f"/threads/{thread_id}/state")
    await ask("input as well", "POST", path, run("hi", command={"goto": "ask"}, stream_mode=["updates"]))
    sent = {"goto": {"node": "ask", "input": saying("sent")}}
    await ask("send", "POST", path, run(None, command=sent, stream_mode=["updates"]))


@talk
async def forks(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}"
    await done(ask, thread_id, "first")
    past = await ask("past", "POST", f"{path}/history", {"limit": 10})
    at = past[2]["checkpoint"]
    modes = {"stream_mode": ["values", "checkpoints"]}
    await ask("by id", "POST", f"{path}/runs/stream", run(None, checkpoint_id=at["checkpoint_id"], **modes))
    await ask("by object", "POST", f"{path}/runs/stream", run("second", checkpoint=at, **modes))
    await ask("state", "GET", f"{path}/state")
    await ask("whole past", "POST", f"{path}/history", {"limit": 20})


def _durability(kind: str) -> None:
    async def ask_for_it(ask: Asked) -> None:
        thread_id = await thread(ask)
        await ask("run", "POST", f"/threads/{thread_id}/runs/stream", run(durability=kind, stream_mode=["values"]))
        await ask("past", "POST", f"/threads/{thread_id}/history", {"limit": 20})

    TALKS[f"durability_{kind}"] = ask_for_it


for _kind in ("sync", "async", "exit"):
    _durability(_kind)


@talk
async def reject(ask: Asked) -> None:
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    await ask("refused", "POST", f"/threads/{thread_id}/runs", run(multitask_strategy="reject"))
    await ask("busy", "GET", f"/threads/{thread_id}")
    await ask("running", "GET", f"/threads/{thread_id}/runs/{run_id}")
    await ask("cancel", "POST", f"/threads/{thread_id}/runs/{run_id}/cancel?wait=true")
    await ask("cancelled", "GET", f"/threads/{thread_id}/runs/{run_id}")
    await ask("state", "GET", f"/threads/{thread_id}/state")
    await ask("thread", "GET", f"/threads/{thread_id}")


@talk
async def enqueue(ask: Asked) -> None:
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    made = await ask("waits", "POST", f"/threads/{thread_id}/runs", run())
    await ask("both", "GET", f"/threads/{thread_id}/runs?select=status")
    await ask("cancel", "POST", f"/threads/{thread_id}/runs/{run_id}/cancel")
    await ask("join", "GET", f"/threads/{thread_id}/runs/{made['run_id']}/join")
    await ask("runs", "GET", f"/threads/{thread_id}/runs?select=status")


@talk
async def interrupt(ask: Asked) -> None:
    thread_id = await thread(ask)
    await forever(ask, thread_id)
    await ask("instead", "POST", f"/threads/{thread_id}/runs/wait", run(multitask_strategy="interrupt"))
    await ask("runs", "GET", f"/threads/{thread_id}/runs?select=status")


@talk
async def rollback(ask: Asked) -> None:
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    await ask("instead", "POST", f"/threads/{thread_id}/runs/wait", run(multitask_strategy="rollback"))
    await gone(ask, f"/threads/{thread_id}/runs/{run_id}")
    await ask("undone", "GET", f"/threads/{thread_id}/runs/{run_id}")
    await ask("runs", "GET", f"/threads/{thread_id}/runs?select=status")
    await ask("state", "GET", f"/threads/{thread_id}/state")


@talk
async def cancelling(ask: Asked) -> None:
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id)
    path = f"/threads/{thread_id}/runs/{run_id}"
    await ask("undo", "POST", f"{path}/cancel?wait=true&action=rollback")
    await gone(ask, path)
    await ask("undone", "GET", path)
    await ask("state", "GET", f"/threads/{thread_id}/state")
    run_id = await forever(ask, thread_id)
    await ask("many", "POST", "/runs/cancel", {"thread_id": thread_id, "run_ids": [run_id]})
    await standing(ask, thread_id, "interrupted")
    await ask("stopped", "GET", f"/threads/{thread_id}/runs/{run_id}")
    await ask("again", "POST", "/runs/cancel", {"thread_id": thread_id, "run_ids": [run_id]})
    await ask("no wish", "POST", "/runs/cancel", {})
    await ask("bad action", "POST", f"{path}/cancel?action=nope")


@talk
async def cancelled_stream(ask: Asked) -> None:
    thread_id = await thread(ask)
    body = run("forever", stream_mode=["values", "custom"], stream_resumable=True)
    path = f"/threads/{thread_id}/runs"
    made = await ask("create", "POST", path, body)
    live = f"{path}/{made['run_id']}/stream"
    frames = await ask.until(
        "live", "GET", live, None, lambda frame: frame.event == "custom", headers={"last-event-id": "0"}
    )
    assert frames
    await ask("cancel", "POST", f"{path}/{made['run_id']}/cancel?wait=true")
    await ask("to its end", "GET", live, headers={"last-event-id": "0"})
    await ask("join", "GET", f"{path}/{made['run_id']}/join")


@talk
async def leaving(ask: Asked) -> None:
    thread_id = await thread(ask)
    run_id = await forever(ask, thread_id, on_disconnect="cancel")
    await standing(ask, thread_id, "interrupted")
    await ask("left", "GET", f"/threads/{thread_id}/runs/{run_id}")


@talk
async def later(ask: Asked) -> None:
    thread_id = await thread(ask)
    made = await ask("later", "POST", f"/threads/{thread_id}/runs", run(after_seconds=3600))
    await ask("pending", "GET", f"/threads/{thread_id}/runs/{made['run_id']}")
    await ask("busy", "GET", f"/threads/{thread_id}")


@talk
async def refused(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}/runs"
    await ask("unknown thread", "POST", f"/threads/{NOWHERE}/runs", run())
    await ask("unknown thread, stream", "POST", f"/threads/{NOWHERE}/runs/stream", run())
    await ask("no uuid thread", "POST", "/threads/nope/runs", run())
    await ask("unknown graph", "POST", path, run(assistant_id="nope"))
    await ask("unknown assistant", "POST", path, run(assistant_id=NOWHERE))
    await ask("no assistant", "POST", path, {"input": {}})
    await ask("unknown mode", "POST", path, run(stream_mode=["nope"]))
    await ask("unknown strategy", "POST", path, run(multitask_strategy="nope"))
    await ask("no json", "POST", path, content="{nope", headers={"content-type": "application/json"})
    await ask("unknown field", "POST", f"{path}/wait", run(nope=1))
    await ask("both", "POST", path, run(config={"configurable": {"a": 1}}, context={"b": 1}))
    await ask("unknown run", "GET", f"{path}/{NOWHERE}")
    await ask("unknown run, join", "GET", f"{path}/{NOWHERE}/join")
    await ask("unknown run, stream", "GET", f"{path}/{NOWHERE}/stream")
    await ask("unknown run, cancel", "POST", f"{path}/{NOWHERE}/cancel")
    await ask("unknown run, delete", "DELETE", f"{path}/{NOWHERE}")
    await ask("no uuid run", "GET", f"{path}/nope")
    await ask("made", "POST", f"/threads/{uuid4()}/runs/wait", run(if_not_exists="create"))
    await ask("wrong method", "PUT", path, {})
    await ask("recursion", "POST", f"{path}/wait", run("weather", config={"recursion_limit": 1}))


ALL = ["values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks", "checkpoints"]


def over(*kinds: str) -> Callable[[SentEvent], bool]:
    """Whether a frame says that the run at the root has come to such an end."""

    def is_over(frame: SentEvent) -> bool:
        params = frame.data["params"]
        return frame.event == "lifecycle" and not params["namespace"] and params["data"]["event"] in kinds

    return is_over


def start(text: str, id: int = 1, **params: Any) -> dict[str, Any]:
    return {"id": id, "method": "run.start", "params": run(text, **params)}


def _protocol(text: str, graph: str) -> None:
    async def ask_for_it(ask: Asked) -> None:
        thread_id = await thread(ask)
        path = f"/threads/{thread_id}"
        await ask("start", "POST", f"{path}/commands", start(text, assistant_id=graph))
        ends = over("completed", "failed", "interrupted")
        for channel in ALL if graph == "agent" else ["messages", "lifecycle", "values"]:
            channels = list(dict.fromkeys([channel, "lifecycle"]))
            await ask.until(channel, "POST", f"{path}/stream/events", {"channels": channels}, ends)
        await ask("state", "GET", f"{path}/state")
        if text == "approve":
            [waiting] = [task["interrupts"][0] for task in (await ask("asked", "GET", f"{path}/state"))["tasks"]]
            answer = {"namespace": [], "interrupt_id": waiting["id"], "response": "yes"}
            await ask("respond", "POST", f"{path}/commands", {"id": 2, "method": "input.respond", "params": answer})
            body = {"channels": ["values", "lifecycle", "input"]}
            await ask.until("to its end", "POST", f"{path}/stream/events", body, over("completed"))

    TALKS[f"protocol_{graph}_{text}"] = ask_for_it


for _graph, _text in (("agent", "hi"), ("agent", "weather"), ("agent", "approve"), ("agent", "boom"), ("parent", "hi")):
    _protocol(_text, _graph)


@talk
async def protocol_refused(ask: Asked) -> None:
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}"
    await ask("unknown method", "POST", f"{path}/commands", {"id": 9, "method": "nope.nope", "params": {}})
    await ask("state.get", "POST", f"{path}/commands", {"id": 9, "method": "state.get", "params": {}})
    await ask("no assistant", "POST", f"{path}/commands", {"id": 9, "method": "run.start", "params": {}})
    await ask("nothing asked", "POST", f"{path}/commands", {"id": 9, "method": "input.respond", "params": {}})
    await ask("no method", "POST", f"{path}/commands", {"id": 9})
    await ask("no channels", "POST", f"{path}/stream/events", {})
    await ask("empty channels", "POST", f"{path}/stream/events", {"channels": []})
    await ask("unknown channel", "POST", f"{path}/stream/events", {"channels": ["nope"]})


@talk
async def protocol_since(ask: Asked) -> None:
    thread_id = str(uuid4())
    path = f"/threads/{thread_id}"
    await ask("start on no thread", "POST", f"{path}/commands", start("hi"))
    await ask.until("first", "POST", f"{path}/stream/events", {"channels": ["lifecycle"]}, over("completed"))
    await ask("start again", "POST", f"{path}/commands", start("ho", 2))
    await standing(ask, thread_id, "idle")
    seen = 0

    def twice(frame: SentEvent) -> bool:
        nonlocal seen
        seen += over("completed")(frame)
        return seen == 2

    await ask.until("both", "POST", f"{path}/stream/events", {"channels": ["lifecycle", "values"]}, twice)


@talk
async def thread_stream(ask: Asked) -> None:
    """A reader of the thread sees what a run begun after it says."""
    thread_id = await thread(ask)
    path = f"/threads/{thread_id}"
    over = asyncio.ensure_future(
        ask.until("stream", "GET", f"{path}/stream", None, lambda frame: "status" in str(frame.data))
    )
    await asyncio.sleep(0.3)  # the reader is there; a server gives no sign of it
    await ask("run", "POST", f"{path}/runs", run(stream_mode=["updates", "custom"]))
    await asyncio.wait_for(over, 20)
    ask.exchanges.sort(key=lambda exchange: exchange.name)


@talk
async def store(ask: Asked) -> None:
    item = {"namespace": ["talk", "a"], "key": "k", "value": {"x": 1, "y": "z"}}
    await ask("put", "PUT", "/store/items", item)
    await ask("put another", "PUT", "/store/items", {**item, "key": "l", "value": {"x": 2}})
    await ask("get", "GET", "/store/items?key=k&namespace=talk.a")
    await ask("get nothing", "GET", "/store/items?key=nope&namespace=talk.a")
    await ask("search", "POST", "/store/items/search", {"namespace_prefix": ["talk"]})
    await ask("filter", "POST", "/store/items/search", {"namespace_prefix": ["talk"], "filter": {"x": 2}})
    await ask("page", "POST", "/store/items/search", {"namespace_prefix": ["talk"], "limit": 1, "offset": 1})
    await ask("namespaces", "POST", "/store/namespaces", {"prefix": ["talk"], "max_depth": 2})
    await ask("namespaces, shallow", "POST", "/store/namespaces", {"prefix": ["talk"], "max_depth": 1})
    await ask("delete", "DELETE", "/store/items", {"namespace": ["talk", "a"], "key": "k"})
    await ask("deleted", "GET", "/store/items?key=k&namespace=talk.a")
    await ask("dotted", "PUT", "/store/items", {**item, "namespace": ["talk.a"]})
    await ask("no key", "PUT", "/store/items", {"namespace": ["talk"], "value": {}})


@talk
async def crons(ask: Asked) -> None:
    mark = {"metadata": {"talk": "crons"}}
    body = {"assistant_id": "agent", "schedule": "0 0 1 1 *", "input": saying("hi"), **mark}
    made = await ask("create", "POST", "/runs/crons", body)
    thread_id = await thread(ask)
    await ask("on a thread", "POST", f"/threads/{thread_id}/runs/crons", body)
    await ask("search", "POST", "/runs/crons/search", {**mark, "sort_by": "created_at", "sort_order": "asc"})
    await ask("of a thread", "POST", "/runs/crons/search", {"thread_id": thread_id})
    await ask("count", "POST", "/runs/crons/count", {"thread_id": thread_id})
    await ask("patch", "PATCH", f"/runs/crons/{made['cron_id']}", {"schedule": "0 0 2 1 *", "enabled": False})
    await ask("delete", "DELETE", f"/runs/crons/{made['cron_id']}")
    await ask("delete again", "DELETE", f"/runs/crons/{made['cron_id']}")
    await ask("bad schedule", "POST", "/runs/crons", {**body, "schedule": "nope"})
    await ask("unknown assistant", "POST", "/runs/crons", {**body, "assistant_id": NOWHERE})
    await ask("unknown thread", "POST", f"/threads/{NOWHERE}/runs/crons", body)
