"""A session's branches on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from threadline.app.client import Client
from threadline.app.tables import rows
from threadline.domain.errors import Missing

PAGE = 500


def tree(client: Client, session: str) -> list[dict[str, Any]]:
    """Every branch, the eldest first."""
    path, found, before = f"{_path(session)}/branches", list[dict[str, Any]](), dict[str, str]()
    while True:
        page = client.get(path, limit=PAGE, **before)
        found += page["items"]
        if page["next"] is None:
            return found[::-1]
        before = {"before": page["next"]}


def act(
    client: Client,
    session: str,
    *,
    name: tuple[str, str] | None = None,
    switch: str | None = None,
    promote: str | None = None,
    delete: str | None = None,
    force: bool = False,
) -> None:
    """Do what is asked, in this order."""
    if name is not None:
        client.send("PUT", _branch(client, session, name[0]), {"name": name[1]})
    if switch is not None:
        client.send("POST", f"{_branch(client, session, switch)}/switch")
    if promote is not None:
        client.send("POST", f"{_branch(client, session, promote)}/promote")
    if delete is not None:
        client.send("DELETE", _branch(client, session, delete), **({"force": True} if force else {}))


def lines(branches: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The tree as a table: `*` marks where the session goes on."""
    if not branches:
        yield "No branches yet."
        return
    table = [("BRANCH", "ID", "STEPS", "RUNS", "BEGAN", "")]
    for depth, branch in _walked(branches):
        mark = "*" if branch["current"] else " "
        name = branch["name"] or "-"
        began = (branch["created_at"] or "-")[:19].replace("T", " ")
        counts = (str(branch["checkpoints"]), str(len(branch["run_ids"])))
        table.append((f"{mark} {'  ' * depth}{name}", branch["branch_id"], *counts, began, _notes(branch)))
    yield from rows(table)


def _walked(branches: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each branch behind the one it forks from, and how deep it lies."""
    children: dict[str | None, list[Mapping[str, Any]]] = {}
    for branch in branches:
        children.setdefault(branch["parent_branch_id"], []).append(branch)
    waiting = [(0, branch) for branch in reversed(children.get(None, []))]
    while waiting:
        depth, branch = waiting.pop()
        yield depth, branch
        waiting += [(depth + 1, child) for child in reversed(children.get(branch["branch_id"], []))]


def _notes(branch: Mapping[str, Any]) -> str:
    pins = [pin["name"] or "pinned" for pin in branch["pinned"]]
    return ", ".join([*(["main line"] if branch["main"] else []), *(f"pin: {pin}" for pin in pins)])


def _branch(client: Client, session: str, branch: str) -> str:
    """The path of a branch, by its id or its name."""
    known = {each["name"]: each["branch_id"] for each in tree(client, session) if each["name"]}
    found = known.get(branch, branch)
    if not found.strip("./"):
        raise Missing(f"This session has no branch {branch}.")
    return f"{_path(session)}/branches/{quote(found, safe='')}"


def _path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"
