"""The branches of a session: told, named, switched to, promoted and deleted."""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from threadline.domain import ports
from threadline.domain.errors import Conflict, Invalid, Missing
from threadline.domain.records import Caller, Mark, Pin, Place, Thread, shown_error
from threadline.services.lineage import Branch, Tree, tree_of
from threadline.services.runner import RunLog
from threadline.services.sessions import Sessions
from threadline.services.states import States
from threadline.services.turns import Beside

ALL = "all"
"""In the place of a branch: what was said on any."""
CHANGED = "The session changed meanwhile: a run began on it, or a step was pinned. Try again."


class Branches:
    """Everything but deleting is done with ids and parents alone; no state is read, none is copied.

    `gate` gives the lock between starting a run on a thread and changing where it goes on.
    """

    def __init__(
        self,
        *,
        lines: ports.Lines,
        marks: ports.Marks,
        pins: ports.Pins,
        runs: ports.Runs,
        log: RunLog,
        sessions: Sessions,
        states: States,
        gate: Callable[[str], Lock],
    ) -> None:
        self._lines = lines
        self._marks = marks
        self._pins = pins
        self._runs = runs
        self._log = log
        self._sessions = sessions
        self._states = states
        self._gate = gate

    async def page(self, thread: Thread, *, limit: int, before: str | None) -> list[dict[str, Any]]:
        """Newest first, those that began before branch `before`. Raises Missing.

        `{branch_id, name, parent_branch_id, fork_checkpoint_id, head_checkpoint_id, checkpoints, run_ids, created_at,
        current, main, pinned}`; `pinned` is a list of `{checkpoint_id, name}`.
        """
        tree = await self._tree(thread)
        tell = await self._telling(thread, tree)
        branches = list(reversed(tree.branches))
        if before is not None:
            branches = branches[branches.index(await self._find(thread, tree, before)) + 1 :]
        return [tell(branch) for branch in branches[:limit]]

    async def line(self, thread: Thread, branch: str | None) -> tuple[Branch | None, list[Place]]:
        """A branch by its id or name, and the line of checkpoints from the first to its head; without one, that shown
        by default. None and no checkpoints where there are none. Raises Missing."""
        tree = await self._tree(thread)
        if branch is not None:
            found: Branch | None = await self._find(thread, tree, branch)
        else:
            found = await self._main(thread, tree) or tree.branch_of.get(await self._lines.head(thread.thread_id) or "")
        return found, tree.line(found.head.checkpoint_id) if found else []

    async def beside(self, thread: Thread, branch: str | None) -> Beside:
        """What was said on other branches only; without one, on others than the session's main line, which it has once
        one was promoted: until then nothing is beside it, as with `all`. Raises Missing."""
        if branch == ALL:
            return Beside()
        if branch is None and not any(mark.main for mark in await self._marks.list(thread.thread_id)):
            return Beside()
        tree = await self._tree(thread)
        found = await self._find(thread, tree, branch) if branch is not None else await self._main(thread, tree)
        if found is None:
            return Beside()
        line = {place.checkpoint_id: place.run_id for place in tree.line(found.head.checkpoint_id)}
        ended = {one: place.run_id for one, place in tree.places.items() if place.run_id and one not in line}
        return Beside(frozenset(ended.values()) - set(line.values()), frozenset(ended.values()))

    async def name(self, thread: Thread, branch: str, name: str | None) -> dict[str, Any]:
        """Call a branch something, or nothing. Raises Missing, Invalid, or Conflict if another one is called that."""
        if name == ALL:
            raise Invalid(f"A branch cannot be called {ALL}: that means all of them.")
        async with self._gate(thread.thread_id):
            tree = await self._tree(thread)
            found = await self._find(thread, tree, branch)
            marks = await self._marks_of(thread, tree)
            if name is not None and any(mark.name == name for one, mark in marks.items() if one != found.branch_id):
                raise Conflict(f"Another branch of this session is called {name}.")
            marks[found.branch_id] = self._mark(thread, found, name, main=_is_main(marks, found))
            await self._keep(thread, marks)
            return (await self._telling(thread, tree))(found)

    async def switch(self, thread: Thread, caller: Caller, branch: str, *, promote: bool = False) -> dict[str, Any]:
        """Let the session go on from the end of a branch; what waits there still waits. `promote`: it is the session's
        main line from now on. Raises Missing, or Conflict while something runs on the session."""
        async with self._gate(thread.thread_id):
            tree = await self._tree(thread)
            found = await self._find(thread, tree, branch)
            await self._check_idle(thread)
            head = found.head
            if await self._lines.head(thread.thread_id) != head.checkpoint_id:
                if not await self._lines.switch(thread.thread_id, head.checkpoint_id):
                    raise Conflict(CHANGED)
                run = await self._runs.get(head.run_id) if head.run_id else None
                await self._states.refresh(thread, caller, error=shown_error(run.error) if run else None)
            if promote:
                known_marks = await self._marks_of(thread, tree)
                marks = {one: replace(mark, main=False) for one, mark in known_marks.items()}
                known = marks.get(found.branch_id)
                marks[found.branch_id] = self._mark(thread, found, known.name if known else None, main=True)
                await self._keep(thread, marks)
            return (await self._telling(thread, tree))(found)

    async def delete(self, thread: Thread, branch: str, *, force: bool = False) -> None:
        """Delete what only this branch stands on: checkpoints, and the runs that left none elsewhere, with their logs
        and turns. What other branches begin from stays theirs.

        Raises Missing, or Conflict: it is the current branch or the main line, something runs on the session, or a
        checkpoint of it is pinned and nobody said `force`.
        """
        async with self._gate(thread.thread_id):
            tree = await self._tree(thread)
            found = await self._find(thread, tree, branch)
            await self._check_idle(thread)
            if await self._lines.head(thread.thread_id) == found.head.checkpoint_id:
                raise Conflict("The session stands on this branch. Switch to another one first.")
            if _is_main(await self._marks_of(thread, tree), found):
                raise Conflict("This branch is the session's main line. Promote another one first.")
            going = {place.checkpoint_id for place in tree.tail(found)}
            pinned = [pin for pin in await self._pinned(thread) if pin.checkpoint_id in going]
            if pinned and not force:
                raise Conflict(f"{len(pinned)} of its checkpoints are pinned. Unpin them, or delete it with force.")
            for pin in pinned:
                await self._pins.remove(thread.thread_id, "", pin.checkpoint_id)
            if not await self._lines.cut(thread.thread_id, going):
                for pin in pinned:
                    await self._pins.put(pin)
                raise Conflict(CHANGED)
            left = {place.run_id for one, place in tree.places.items() if one not in going}
            runs = {run_id for one in going if (run_id := tree.places[one].run_id) and run_id not in left}
            await self._runs.forget(thread.thread_id, runs)
            await self._log.discard(runs)
            marks = await self._marks_of(thread, tree)
            marks.pop(found.branch_id, None)
            await self._keep(thread, marks)
            await self._sessions.forget(thread.thread_id)

    async def _tree(self, thread: Thread) -> Tree:
        return tree_of(await self._lines.places(thread.thread_id))

    async def _find(self, thread: Thread, tree: Tree, branch: str) -> Branch:
        """A branch by any of its checkpoints, or by its name. Raises Missing."""
        if branch in tree.branch_of:
            return tree.branch_of[branch]
        for one, mark in (await self._marks_of(thread, tree)).items():
            if mark.name == branch:
                return tree.branch_of[one]
        raise Missing(f"This session has no branch {branch}.")

    async def _main(self, thread: Thread, tree: Tree) -> Branch | None:
        marks = await self._marks_of(thread, tree)
        return next((tree.branch_of[one] for one, mark in marks.items() if mark.main), None)

    async def _marks_of(self, thread: Thread, tree: Tree) -> dict[str, Mark]:
        """What is said of each branch, by its id; of a checkpoint that is gone nothing is."""
        marks: dict[str, Mark] = {}
        for mark in await self._marks.list(thread.thread_id):
            if mark.checkpoint_id not in tree.branch_of:
                continue
            one = tree.branch_of[mark.checkpoint_id].branch_id
            if (known := marks.get(one)) is not None:  # two branches that have become one
                mark = replace(mark, name=mark.name or known.name, main=mark.main or known.main)
            marks[one] = mark
        return marks

    async def _keep(self, thread: Thread, marks: Mapping[str, Mark]) -> None:
        await self._marks.put(thread.thread_id, [mark for mark in marks.values() if mark.name is not None or mark.main])

    async def _pinned(self, thread: Thread) -> list[Pin]:
        return [pin for pin in await self._pins.list(thread.thread_id) if not pin.checkpoint_ns]

    async def _check_idle(self, thread: Thread) -> None:
        if await self._runs.list(thread_id=thread.thread_id, status=("pending", "running")):
            raise Conflict("The session is busy: a run goes on or waits on it. Wait for it, or cancel it.")

    def _mark(self, thread: Thread, branch: Branch, name: str | None, *, main: bool) -> Mark:
        return Mark(thread.thread_id, branch.head.checkpoint_id, name, main, datetime.now(UTC))

    async def _telling(self, thread: Thread, tree: Tree) -> Callable[[Branch], dict[str, Any]]:
        """What tells of a branch."""
        marks, head = await self._marks_of(thread, tree), await self._lines.head(thread.thread_id)
        pinned: dict[str, list[Pin]] = {}
        for pin in await self._pinned(thread):
            if pin.checkpoint_id in tree.branch_of:
                pinned.setdefault(tree.branch_of[pin.checkpoint_id].branch_id, []).append(pin)

        def tell(branch: Branch) -> dict[str, Any]:
            mark, made = marks.get(branch.branch_id), branch.own[0].made_at
            return {
                "branch_id": branch.branch_id,
                "name": mark.name if mark else None,
                "parent_branch_id": branch.parent_branch_id,
                "fork_checkpoint_id": branch.fork_checkpoint_id,
                "head_checkpoint_id": branch.head.checkpoint_id,
                "checkpoints": len(branch.own),
                "run_ids": branch.run_ids,
                "created_at": made.isoformat() if made else None,
                "current": branch.head.checkpoint_id == head,
                "main": mark is not None and mark.main,
                "pinned": [
                    {"checkpoint_id": pin.checkpoint_id, "name": pin.name} for pin in pinned.get(branch.branch_id, ())
                ],
            }

        return tell


def _is_main(marks: Mapping[str, Mark], branch: Branch) -> bool:
    return branch.branch_id in marks and marks[branch.branch_id].main
