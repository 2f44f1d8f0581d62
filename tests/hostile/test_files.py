"""Paths and files that mean harm, given to the tool that works with a session's files."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

from threadline.domain.errors import Invalid
from threadline.services.workspace import Quota, Workspaces
from tools import files
from tools.contract import Asker
from tools.toolbox import Toolbox

SESSION = str(uuid4())
SECRET = "the secret outside"

PATHS = {
    "parent": "../outside.txt",
    "parent of parent": "../../outside.txt",
    "parent in the middle": "notes/../../outside.txt",
    "parent at the end": "notes/..",
    "absolute": "/etc/passwd",
    "absolute with two slashes": "//etc/passwd",
    "home": "~/.ssh/id_rsa/../../../outside.txt",
    "backslashes": "..\\outside.txt",
    "drive": "C:\\Windows\\win.ini",
    "null byte": "notes.txt\0.png",
    "line break": "notes\n.txt",
    "escape": "notes\x1b[2J",
    "nothing": "",
    "spaces": "   ",
    "dot": ".",
    "dots": "./.",
    "slash": "/",
    "long name": "a" * 300,
    "long Korean name": "가" * 100,
    "deep": "/".join("abcdefghij"),
    "very long": "a/" * 499 + "a",
    "a link to a file": "link.txt",
    "a link to a folder": "folder-link/outside.txt",
    "a link to a link": "link-to-link.txt",
    "a link in a circle": "circle",
    "a named pipe": "pipe",
    "a device": "null",
    "a folder": "notes",
    "below a file": "kept.txt/below",
    "a draft": ".1.abc.draft",
    "another session": f"../{uuid4()}/kept.txt",
}
"""None of these names a file in the workspace."""

OPERATIONS = ("read", "write", "delete")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of all workspaces, with a secret beside the session's own."""
    root = tmp_path / "workspaces"
    own = root / SESSION
    (own / "notes").mkdir(parents=True)
    (own / "kept.txt").write_text("kept", encoding="utf-8")
    (root / "outside.txt").write_text(SECRET, encoding="utf-8")
    (tmp_path / "outside.txt").write_text(SECRET, encoding="utf-8")
    (own / "link.txt").symlink_to(root / "outside.txt")
    (own / "folder-link").symlink_to(root)
    (own / "link-to-link.txt").symlink_to("link.txt")
    (own / "circle").symlink_to("circle")
    os.mkfifo(own / "pipe")
    (own / "null").symlink_to("/dev/zero")
    return root


def toolbox_of(root: Path, quota: Quota | None = None) -> Toolbox:
    workspaces = Workspaces(root, quota=quota or Quota(total=2000, file=1000, files=5))
    return Toolbox([files.tool(lambda asker: workspaces.of(asker.session), timeout=5)])


def everything(root: Path) -> dict[str, str]:
    """Every file and link below a folder with what is in it."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", PATHS)
async def test_a_path_that_leads_elsewhere(name: str, operation: str, root: Path) -> None:
    before = everything(root.parent)

    outcome = await toolbox_of(root).call(
        "files", {"operation": operation, "path": PATHS[name], "content": "changed"}, Asker(session=SESSION)
    )

    after = everything(root.parent)
    own = f"workspaces/{SESSION}/"
    assert {path: text for path, text in after.items() if not path.startswith(own)} == {
        path: text for path, text in before.items() if not path.startswith(own)
    }
    assert SECRET not in str(outcome)
    assert str(root) not in str(outcome)
    replaced = name.startswith("a link") or name in {"a device", "a named pipe"}  # by name, never what it points to
    if not (replaced and operation in ("write", "delete") and "folder" not in name):
        assert outcome.error
        assert after == before


@pytest.mark.parametrize("name", [name for name in PATHS if name not in {"nothing", "spaces"}])
@pytest.mark.parametrize("operation", ["list", "search"])
async def test_looking_around_stays_inside(name: str, operation: str, root: Path) -> None:
    outcome = await toolbox_of(root).call(
        "files", {"operation": operation, "path": PATHS[name], "query": "secret"}, Asker(session=SESSION)
    )

    assert outcome.error or not (outcome.result or {}).get("hits")
    assert "outside" not in str(outcome.result)


async def test_a_link_is_not_listed(root: Path) -> None:
    outcome = await toolbox_of(root).call("files", {"operation": "list"}, Asker(session=SESSION))

    assert outcome.result is not None
    assert outcome.result["files"] == [{"path": "kept.txt", "size": 4}]


async def test_another_session_sees_nothing(root: Path) -> None:
    other = Asker(session=str(uuid4()))
    toolbox = toolbox_of(root)

    assert (await toolbox.call("files", {"operation": "list"}, other)).result == {
        "files": [],
        "text": None,
        "lines": None,
        "hits": None,
        "more": False,
    }
    assert (await toolbox.call("files", {"operation": "read", "path": "kept.txt"}, other)).error


@pytest.mark.parametrize("session", ["", "..", "x", f"../{SESSION}", f"{SESSION}/notes", "00000000"])
async def test_what_is_no_session_has_no_files(session: str, root: Path) -> None:
    outcome = await toolbox_of(root).call("files", {"operation": "list"}, Asker(session=session))

    assert outcome.error == "There is no session, so there are no files."


@pytest.mark.parametrize(
    ("path", "size", "refusal"),
    [
        ("big.txt", 1001, "A file may have 1000 bytes"),
        ("second.txt", 1000, None),
        ("kept.txt", 1000, None),
    ],
)
async def test_a_file_has_a_limit(path: str, size: int, refusal: str | None, root: Path) -> None:
    outcome = await toolbox_of(root).call(
        "files", {"operation": "write", "path": path, "content": "x" * size}, Asker(session=SESSION)
    )

    assert (refusal in (outcome.error or "")) if refusal else outcome.error is None


async def test_a_workspace_has_a_limit_of_bytes_and_files(root: Path) -> None:
    toolbox, asker = toolbox_of(root), Asker(session=SESSION)

    async def write(name: str, size: int) -> str | None:
        args = {"operation": "write", "path": name, "content": "가" * size}  # three bytes each
        return (await toolbox.call("files", args, asker)).error

    assert await write("one", 333) is None
    assert await write("two", 332) is None
    assert await write("three", 1) == "A workspace may hold 2000 bytes in all."
    assert await write("two", 1) is None
    assert [await write(name, 0) for name in ("three", "four")] == [None, None]
    assert await write("five", 0) == "A workspace may hold 5 files."


async def test_files_that_are_no_text_are_said_to_be(root: Path) -> None:
    own = root / SESSION
    (own / "binary").write_bytes(b"\x00\x01\x02")
    (own / "latin").write_bytes("Größe \xff\xff".encode("latin-1"))
    (own / "windows.txt").write_bytes("안녕하세요".encode("cp949"))
    toolbox, asker = toolbox_of(root), Asker(session=SESSION)

    async def read(name: str) -> tuple[str | None, str | None]:
        outcome = await toolbox.call("files", {"operation": "read", "path": name}, asker)
        return (outcome.result or {}).get("text"), outcome.error

    assert await read("binary") == (None, "binary is no text file")
    assert await read("windows.txt") == ("안녕하세요", None)
    assert (await read("latin"))[1] == "latin is no text file in UTF-8 or CP949"


async def test_what_files_are_for(tmp_path: Path) -> None:
    toolbox, asker = toolbox_of(tmp_path, Quota()), Asker(session=SESSION)

    async def do(**args: object) -> dict[str, object]:
        outcome = await toolbox.call("files", args, asker)
        assert outcome.result is not None, outcome.error
        return {key: value for key, value in outcome.result.items() if value not in (None, False)}

    assert await do(operation="write", path="노트/오늘.md", content="첫 줄\nThe Second\n") == {
        "files": [{"path": "노트/오늘.md", "size": 18}]
    }
    assert await do(operation="read", path="노트/오늘.md") == {"text": "첫 줄\nThe Second", "lines": 2}
    assert await do(operation="read", path="노트/오늘.md", start=2) == {"text": "The Second", "lines": 2}
    assert await do(operation="search", query="second") == {
        "hits": [{"path": "노트/오늘.md", "line": 2, "text": "The Second"}]
    }
    assert await do(operation="list", path="노트") == {"files": [{"path": "노트/오늘.md", "size": 18}]}
    assert await do(operation="delete", path="노트/오늘.md") == {"files": []}
    assert await do(operation="list") == {"files": []}


def test_what_changes_something_is_known_before() -> None:
    risks = {
        operation: files.risk(files.FilesArguments(operation=operation, path="a", content="", query="q"))  # type: ignore[arg-type]
        for operation in ("list", "read", "write", "search", "delete")
    }

    assert risks == {"list": "read", "read": "read", "write": "write", "search": "read", "delete": "write"}


def test_a_session_that_is_deleted_takes_its_files_along(root: Path) -> None:
    workspaces = Workspaces(root, quota=Quota())
    workspaces.delete(SESSION)

    assert not (root / SESSION).exists()
    assert (root / "outside.txt").read_text(encoding="utf-8") == SECRET
    assert workspaces.of(SESSION).folder is None
    with pytest.raises(Invalid):
        workspaces.of("..")
