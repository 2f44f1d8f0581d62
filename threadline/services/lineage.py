"""A thread's tree of checkpoints, condensed to branches. Pure: ids and parents in, branches out.

At a fork the oldest child goes on with the branch it is on; every other child begins one of its own. A branch's id is
the id of its first own checkpoint, and any checkpoint of a branch is a name for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from threadline.domain.records import Place


@dataclass(slots=True)
class Branch:
    """A line of checkpoints from a fork, or from the beginning, to an end. `own`: oldest first, never empty."""

    parent_branch_id: str | None
    fork_checkpoint_id: str | None
    own: list[Place] = field(default_factory=list)

    @property
    def branch_id(self) -> str:
        return self.own[0].checkpoint_id

    @property
    def head(self) -> Place:
        return self.own[-1]

    @property
    def run_ids(self) -> list[str]:
        """The runs that made its own checkpoints, in order."""
        return list(dict.fromkeys(place.run_id for place in self.own if place.run_id))


@dataclass(frozen=True, slots=True)
class Tree:
    """The branches, those that began first first; `branch_of` says for each checkpoint whose own it is."""

    branches: Sequence[Branch]
    branch_of: Mapping[str, Branch]
    places: Mapping[str, Place]

    def line(self, checkpoint_id: str) -> list[Place]:
        """The checkpoints from the thread's first one to this one."""
        line: list[Place] = []
        branch, last = self.branch_of[checkpoint_id], checkpoint_id
        while True:
            ids = [place.checkpoint_id for place in branch.own]
            line += reversed(branch.own[: ids.index(last) + 1])
            if branch.fork_checkpoint_id is None:
                return line[::-1]
            last = branch.fork_checkpoint_id
            branch = self.branch_of[last]

    def tail(self, branch: Branch) -> list[Place]:
        """The end of a branch that no other branch stands on, oldest first."""
        forks = {other.fork_checkpoint_id for other in self.branches}
        ids = [place.checkpoint_id for place in branch.own]
        last_fork = max((index for index, one in enumerate(ids) if one in forks), default=-1)
        return branch.own[last_fork + 1 :]


def tree_of(places: Iterable[Place]) -> Tree:
    """The tree of a thread's checkpoints, given in the order of their ids.

    One whose parent is not there begins a line; of those that are their own ancestors the oldest does.
    """
    known = {place.checkpoint_id: place for place in places}
    children: dict[str | None, list[str]] = {}
    for one, place in known.items():
        children.setdefault(place.parent_id if place.parent_id in known else None, []).append(one)
    branches: list[Branch] = []
    branch_of: dict[str, Branch] = {}

    def grow(root: str, fork: str | None) -> None:
        waiting: list[tuple[str, str | None]] = [(root, fork)]
        while waiting:
            one, fork = waiting.pop()
            branch = Branch(branch_of[fork].branch_id if fork is not None else None, fork)
            branches.append(branch)
            here: str | None = one
            while here is not None:
                branch.own.append(known[here])
                branch_of[here] = branch
                following = [child for child in children.get(here, ()) if child not in branch_of]
                waiting += [(child, here) for child in following[1:]]
                here = following[0] if following else None

    for root in children.get(None, ()):
        grow(root, None)
    for one in known:
        if one not in branch_of:
            grow(one, None)
    branches.sort(key=lambda branch: branch.branch_id)
    return Tree(branches, branch_of, known)
