"""Whatever is done to one branch, every other one's states stay as they were, to the byte.

A search: random lives of sessions, over HTTP. After each step every state that was ever seen is read again.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.service import ROOT, Client, running
from tests.service import settings as of_service
from threadline.app.prune import prune
from threadline.domain.records import Limits

PROJECT = ROOT / "tests" / "projects" / "branches" / "langgraph.json"
LIVES, STEPS = 14, 16


async def by_copy(client: Client, session_id: str) -> str:
    """Another session with the same states: a copy."""
    return str((await client.http.post(f"/threads/{session_id}/copy")).json()["thread_id"])


async def by_file(client: Client, session_id: str) -> str:
    """Another session with the same states: exported and imported."""
    file = await client.http.get(f"/sessions/{session_id}/export")
    assert file.status_code == 200, file.text
    made = await client.http.post("/sessions/import", content=file.content)
    assert made.status_code == 201, made.text
    return str(made.json()["session_id"])


CARRIERS: list[Callable[[Client, str], Awaitable[str]]] = [by_copy, by_file]
"""What makes another session of one, with the same checkpoints under the same ids."""


def nameless(states: dict[str, bytes]) -> dict[str, bytes]:
    """The states without the ids of the runs that made them: imported runs get new ones."""
    return {one: re.sub(rb"'run_id': '[^']*'", b"", state) for one, state in states.items()}


picks = st.integers(0, 40)
names = st.sampled_from(["first", "둘째", "third"])


def step(**drawn: Any) -> Callable[[Callable[..., Any]], Any]:
    """A rule that is counted, and after which everything is read again."""

    def decorate(function: Callable[..., Awaitable[set[str]]]) -> Any:
        @wraps(function)
        def told(self: Lives, **values: Any) -> None:
            self.done[function.__name__] += 1
            self.loop.run(self.look(function(self, **values)))

        return rule(**drawn)(told)

    return decorate


class Lives(RuleBasedStateMachine):
    """A step gives the checkpoints that it may go on from, or take."""

    def __init__(self, loop: asyncio.Runner, client: Client, folder: Path, done: Counter[str]) -> None:
        super().__init__()
        self.loop, self.client, self.folder, self.done = loop, client, folder, done
        self.seen: dict[str, bytes] = {}
        self.said = 0
        self.session_id = loop.run(self.begin())

    async def begin(self) -> str:
        frames = await self.client.chat("hello")
        session_id = str(frames[0].data["session_id"])
        self.seen = await self.states(session_id)
        return session_id

    # Reading

    async def states(self, session_id: str) -> dict[str, bytes]:
        """The state at each checkpoint as LangGraph's clients are shown it, but for its parent, which pruning may
        change, and the thread. Not that of the subgraph: to LangGraph, what it keeps is the same at any checkpoint."""
        found = {}
        for checkpoint_id in [each["checkpoint_id"] for each in await self.checkpoints(session_id)]:
            path = f"/threads/{session_id}/state/{checkpoint_id}"
            response = await self.client.http.get(path)
            assert response.status_code == 200, response.text
            state = response.json()
            for name in ("parent_checkpoint", "parent_checkpoint_id", "parent_config"):
                state.pop(name, None)
            state["metadata"].pop("counters_since_delta_snapshot", None)  # where a conversation is written out
            found[checkpoint_id] = repr(state).replace(session_id, "").encode()
        return found

    async def checkpoints(self, session_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.client.json(f"/sessions/{session_id}/checkpoints", limit=500))[
            "items"
        ]
        return items

    async def branches(self) -> list[dict[str, Any]]:
        found = await self.client.json(f"/sessions/{self.session_id}/branches", limit=500)
        items: list[dict[str, Any]] = found["items"]
        return items

    async def look(self, doing: Awaitable[set[str]]) -> None:
        """Do it; then all is as it was, but for what it concerned."""
        concerned = await doing
        now = await self.states(self.session_id)
        changed = {one for one, state in self.seen.items() if one not in concerned and now.get(one) != state}
        assert not changed, changed
        self.seen = now
        branches = await self.branches()
        assert [branch["current"] for branch in branches].count(True) == 1
        assert sum(branch["checkpoints"] for branch in branches) == len(now)
        document = await self.client.json(f"/sessions/{self.session_id}")
        assert document["session_id"] == self.session_id
        state = (await self.client.http.get(f"/threads/{self.session_id}/state")).json()
        [current] = [branch for branch in branches if branch["current"]]
        assert state["checkpoint"]["checkpoint_id"] == current["head_checkpoint_id"]

    async def head(self) -> str:
        return str(next(b["head_checkpoint_id"] for b in await self.branches() if b["current"]))

    async def pick(self, pick: int) -> dict[str, Any]:
        every = await self.checkpoints(self.session_id)
        return every[pick % len(every)]

    def text(self, asks: bool) -> str:
        self.said += 1
        return f"{self.said}{'?' if asks else ''}"

    # Doing

    @step(asks=st.booleans())
    async def chat(self, asks: bool) -> set[str]:
        head = await self.head()
        await self.client.chat(self.text(asks), self.session_id)
        return {head}

    @step(asked=st.booleans())
    async def answer(self, asked: bool) -> set[str]:
        head = await self.head()
        if asked:
            await self.client.chat(self.text(True), self.session_id)
        state = (await self.client.http.get(f"/threads/{self.session_id}/state")).json()
        for interrupt in state["interrupts"][:1]:
            self.done["answered"] += 1
            resume = {"interrupt_id": interrupt["id"], "value": "an answer"}
            body = {"session_id": self.session_id, "resume": resume}
            frames = await self.client.read("POST", "/chat", json=body)
            assert frames[-1].data["status"] == "success", frames[-1]
        return {head}

    @step(pick=picks)
    async def run_again(self, pick: int) -> set[str]:
        chosen = await self.pick(pick)
        body = {"mode": "rerun", "checkpoint_id": chosen["checkpoint_id"]}
        response = await self.client.http.post(f"/sessions/{self.session_id}/replay", json=body)
        assert response.status_code == (200 if chosen["next"] else 409), response.text
        return set()

    @step(pick=picks)
    async def fork(self, pick: int) -> set[str]:
        """Say something else at an earlier point."""
        chosen = (await self.pick(pick))["checkpoint_id"]
        given = {"messages": [{"role": "user", "content": self.text(False)}]}
        body = {"assistant_id": "agent", "input": given, "checkpoint_id": chosen}
        response = await self.client.http.post(f"/threads/{self.session_id}/runs/wait", json=body)
        assert response.status_code == 200, response.text
        return set()

    @step(pick=picks, node=st.sampled_from(["think", "ask", "__copy__"]))
    async def edit(self, pick: int, node: str) -> set[str]:
        chosen = (await self.pick(pick))["checkpoint_id"]
        values = None if node == "__copy__" else {"total": 100, "notes": [self.text(False)]}
        place = {"checkpoint_id": chosen, "checkpoint_ns": ""}
        body = {"values": values, "as_node": node, "checkpoint": place}
        response = await self.client.http.post(f"/threads/{self.session_id}/state", json=body)
        assert response.status_code == 200, response.text
        return {chosen} if not any(b["fork_checkpoint_id"] == chosen for b in await self.branches()) else set()

    @step(pick=picks, name=names)
    async def name(self, pick: int, name: str) -> set[str]:
        await self.change(pick, "PUT", "", json={"name": name}, may=(200, 409))
        return set()

    @step(pick=picks)
    async def switch(self, pick: int) -> set[str]:
        await self.change(pick, "POST", "/switch", may=(200,))
        return set()

    @step(pick=picks)
    async def promote(self, pick: int) -> set[str]:
        await self.change(pick, "POST", "/promote", may=(200,))
        return set()

    @step(pick=picks, force=st.booleans())
    async def delete(self, pick: int, force: bool) -> set[str]:
        branches = await self.branches()
        chosen = branches[pick % len(branches)]
        line = await self.client.json(f"/sessions/{self.session_id}/checkpoints", branch=chosen["branch_id"], limit=500)
        parents = [each["parent_id"] for each in await self.checkpoints(self.session_id)]
        tail = set()
        for each in line["items"]:  # from its end to where another one begins
            if parents.count(each["checkpoint_id"]) > (1 if tail else 0):
                break
            tail.add(each["checkpoint_id"])
        status = await self.change(pick, "DELETE", "", params={"force": force}, may=(204, 409))
        pinned = not force and tail & {pin["checkpoint_id"] for pin in chosen["pinned"]}
        assert status == (409 if chosen["current"] or chosen["main"] or pinned else 204)
        if status != 204:
            return set()
        self.done["deleted"] += 1
        assert not tail & {each["checkpoint_id"] for each in await self.checkpoints(self.session_id)}
        return tail

    async def change(self, pick: int, method: str, path: str, *, may: tuple[int, ...], **request: Any) -> int:
        branches = await self.branches()
        branch = branches[pick % len(branches)]["branch_id"]
        whole = f"/sessions/{self.session_id}/branches/{branch}{path}"
        response = await self.client.http.request(method, whole, **request)
        assert response.status_code in may, response.text
        return response.status_code

    @step(pick=picks, keep=st.booleans())
    async def pin(self, pick: int, keep: bool) -> set[str]:
        chosen = (await self.pick(pick))["checkpoint_id"]
        path = f"/sessions/{self.session_id}/checkpoints/{chosen}/pin"
        assert (await self.client.http.request("PUT" if keep else "DELETE", path)).is_success
        return set()

    @step(most=st.integers(3, 30))
    async def prune(self, most: int) -> set[str]:
        """What goes is old; what stays reads as before, and is no other branch's head."""
        heads = {branch["head_checkpoint_id"] for branch in await self.branches() if branch["current"]}
        named = [branch["name"] for branch in await self.branches() if branch["name"]]
        of = of_service(self.folder / "data", config=PROJECT)
        limits = Limits(max_checkpoints=most)
        await prune(of, limits, max_log_age=None, thread_id=self.session_id, dry_run=False)
        left = {each["checkpoint_id"] for each in await self.checkpoints(self.session_id)}
        assert heads <= left
        assert {branch["name"] for branch in await self.branches()} >= set(named)
        return set(self.seen) - left

    @step(pick=picks)
    async def carry(self, pick: int) -> set[str]:
        """Into another session, which has the same states."""
        other = await CARRIERS[pick % len(CARRIERS)](self.client, self.session_id)
        assert nameless(await self.states(other)) == nameless(self.seen)
        here, there = [(await self.client.http.get(f"/threads/{one}/state")).json() for one in (self.session_id, other)]
        assert there["checkpoint"]["checkpoint_id"] == here["checkpoint"]["checkpoint_id"]
        assert (await self.client.http.delete(f"/sessions/{other}")).status_code == 204
        return set()


@pytest.mark.timeout(900)  # of which most would go into making a failure small
def test_every_other_branch_stays_as_it_was() -> None:
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="threadline-") as name, asyncio.Runner() as loop:
        stack, folder = AsyncExitStack(), Path(name)
        client = loop.run(stack.enter_async_context(running(folder / "data", config=PROJECT)))
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                lambda: Lives(loop, client, folder, done),
                settings=settings(
                    max_examples=LIVES,
                    stateful_step_count=STEPS,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=(Phase.generate, Phase.shrink),
                ),
            )
        finally:
            loop.run(stack.aclose())
    print(dict(done))
    assert min(done[name] for name in ("answered", "deleted", "run_again", "edit", "switch", "promote", "prune")) > 0
