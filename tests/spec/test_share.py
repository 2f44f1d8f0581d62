"""Share: a session as a file, a file as a session; nothing secret goes out, nothing hostile comes in."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import sqlite3
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import ormsgpack
import pytest

from tests.conftest import Start
from tests.service import CLEAN, Client, Frame, running, said
from tests.spec.test_interrupts import GRAPH
from tests.spec.test_replay import replay, steps, three_turns
from tests.stubs.model_server import ModelStub, answer, intent

Lines = list[dict[str, Any]]


async def exported(client: Client, session_id: str) -> bytes:
    response = await client.http.get(f"/sessions/{session_id}/export")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/gzip"
    return response.content


async def imported(client: Client, file: bytes) -> dict[str, Any]:
    response = await client.http.post("/sessions/import", content=file)
    assert response.status_code == 201, response.text
    return response.json()


def opened(file: bytes) -> Lines:
    return [json.loads(line) for line in gzip.decompress(file).splitlines()]


def packed(lines: Iterable[dict[str, Any]], *, end: bool = True) -> bytes:
    """A file of these lines; its last one fits them, as whoever means harm would see to."""
    counts: dict[str, int] = {}
    digest, text = hashlib.sha256(), b""
    for line in lines:
        kind = str(line.get("kind"))
        if kind == "end":
            continue
        raw = json.dumps(line).encode() + b"\n"
        text += raw
        if kind != "expect":
            digest.update(raw)
            counts[kind] = counts.get(kind, 0) + 1
    last = {"kind": "end", "counts": counts, "redacted": {}, "sha256": digest.hexdigest()}
    return gzip.compress(text + (json.dumps(last).encode() + b"\n" if end else b""))


def of_kind(lines: Lines, kind: str) -> Lines:
    return [line for line in lines if line["kind"] == kind]


def content(file: bytes) -> str:
    """A file's lines without what differs from one export or import to the next."""
    lines = [line for line in opened(file) if line["kind"] != "end"]
    ids = {line["run_id"]: f"run {n}" for n, line in enumerate(of_kind(lines, "run"))}
    ids[of_kind(lines, "thread")[0]["thread_id"]] = "thread"
    for line in lines:
        if line["kind"] in ("checkpoint", "write"):  # state stays as it was, old ids in it too
            line.pop("data"), line.pop("values", None), line.pop("value", None)
        if line["kind"] in ("header", "thread"):
            line.pop("created_at"), line.pop("updated_at", None)
    text = json.dumps(lines)
    for old, new in ids.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    return text


async def states(client: Client, session_id: str) -> dict[str, Any]:
    """Every checkpoint's state, as it is read."""
    found = {}
    for step in await steps(client, session_id):
        whole = await client.json(f"/sessions/{session_id}/checkpoints/{step['checkpoint_id']}")
        found[step["checkpoint_id"]] = {k: v for k, v in whole.items() if k not in ("run_id", "pinned", "name")}
    return found


def told(frames: list[Frame]) -> list[tuple[str, dict[str, Any]]]:
    return [(f.event, {k: v for k, v in f.data.items() if k not in ("run_id", "session_id")}) for f in frames]


async def sessions(client: Client) -> list[str]:
    return [item["session_id"] for item in (await client.json("/sessions", limit=500))["items"]]


async def test_what_goes_out_comes_back(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    first = (await steps(scripted, session_id))[2]["checkpoint_id"]
    await scripted.http.put(f"/sessions/{session_id}/checkpoints/{first}/pin", json={"name": "here"})
    model.script(intent(), answer("a branch"))
    await replay(scripted, session_id, "rerun", (await steps(scripted, session_id))[1]["checkpoint_id"])
    calls = len(model.calls)
    file = await exported(scripted, session_id)

    made = await imported(scripted, file)

    new = made["session_id"]
    assert (made["turns"], made["runs"], made["note"]) == (4, 4, None)
    assert made["graph"] == {"id": "agent", "served": True, "changed": False}
    assert (await sessions(scripted))[0] == new
    assert content(await exported(scripted, new)) == content(file)
    assert await states(scripted, new) == await states(scripted, session_id)
    for place in (None, first):
        again, was = [await replay(scripted, one, "recorded", place) for one in (new, session_id)]
        assert told(again) == told(was)
        assert len(again) > 10
    document, before = [(await scripted.json(f"/sessions/{one}"))["messages"] for one in (new, session_id)]
    assert [m["content"] for m in document] == [m["content"] for m in before]
    assert {m["metadata"]["turn_id"] for m in document}.isdisjoint(m["metadata"]["turn_id"] for m in before)
    kept = next(s for s in await steps(scripted, new) if s["pinned"])
    assert (kept["checkpoint_id"], kept["name"]) == (first, "here")
    assert len(model.calls) == calls


async def test_an_imported_session_goes_on_and_is_run_again(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    new = (await imported(scripted, await exported(scripted, session_id)))["session_id"]
    before = await states(scripted, session_id)
    model.script(intent(), answer("still here"))

    went_on = await scripted.chat("and now?", new)

    assert went_on[-2].data["content"] == "still here"
    assert [m["content"] for m in model.calls[-1].body["messages"] if m["role"] == "user"][:2] == ["hi", "what is 6*7?"]
    model.script(intent(), answer("anew"))
    again = await replay(scripted, new, "rerun", (await steps(scripted, new))[1]["checkpoint_id"])
    assert again[-2].data["content"] == "anew"
    assert await states(scripted, session_id) == before


async def test_its_branches_come_along_and_it_stands_where_it_stood(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    model.script(intent(), answer("a branch"))
    await replay(scripted, session_id, "rerun", (await steps(scripted, session_id))[1]["checkpoint_id"])
    young, old = (await scripted.json(f"/sessions/{session_id}/branches"))["items"]
    for branch, name in ((young, "the other"), (old, "the first")):
        await scripted.http.put(f"/sessions/{session_id}/branches/{branch['branch_id']}", json={"name": name})
    await scripted.http.post(f"/sessions/{session_id}/branches/{old['branch_id']}/switch")

    new = (await imported(scripted, await exported(scripted, session_id)))["session_id"]

    then, now = [(await scripted.json(f"/sessions/{one}/branches"))["items"] for one in (session_id, new)]
    assert [_without_runs(branch) for branch in now] == [_without_runs(branch) for branch in then]
    assert [branch["name"] for branch in now] == ["the other", "the first"]
    model.script(intent(), answer("still on the first"))
    await scripted.chat("go on", new)
    said = [m["content"] for m in model.calls[-1].body["messages"] if m["role"] == "user"]
    assert said[:3] == ["hi", "what is 6*7?", "thanks"]


def _without_runs(branch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in branch.items() if "run" not in name}


async def test_twice_imported_is_two_sessions(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    file = await exported(scripted, session_id)

    one, two = [(await imported(scripted, file))["session_id"] for _ in range(2)]

    assert len({session_id, one, two}) == 3
    await scripted.http.delete(f"/sessions/{one}")
    assert content(await exported(scripted, two)) == content(file)
    await scripted.http.delete(f"/sessions/{session_id}")
    assert len(await steps(scripted, two)) == 13


async def test_it_is_the_importers(start: Start) -> None:
    keys = ("first-key-of-ada", "second-key-of-bob")
    async with start(api_keys=keys) as service:
        session_id = (await service.chat("hello"))[0].data["session_id"]
        file = await exported(service, session_id)
        bob = {"x-api-key": keys[1]}
        assert (await service.http.get(f"/sessions/{session_id}/export", headers=bob)).status_code == 404
        made = await service.http.post("/sessions/import", content=file, headers=bob)

        new = made.json()["session_id"]
        assert (await service.http.get(f"/sessions/{new}")).status_code == 404
        listed = (await service.http.get("/sessions", headers=bob)).json()["items"]

    assert [item["session_id"] for item in listed] == [new]
    owner = service.context.keys.caller(keys[0]).id
    assert owner not in gzip.decompress(file).decode()


@pytest.fixture
async def asking(start: Start, tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "asking.py").write_text(GRAPH)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"asker": "./asking.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as client:
        yield client


AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def who(authorization: str | None) -> str:
    return (authorization or "").removeprefix("Bearer of-")


@auth.on.threads
async def own(ctx, value):
    value.setdefault("metadata", {})["owner"] = ctx.user.identity
    return {"owner": ctx.user.identity}


@auth.on.threads.create
async def create(ctx, value):
    if ctx.user.identity == "nobody-much":
        return False
    return await own(ctx, value)
"""


async def test_a_projects_own_auth_says_whose_it_is(start: Start, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(GRAPH)
    (tmp_path / "auth.py").write_text(AUTH)
    config = {"graphs": {"asker": "./asking.py:agent"}, "auth": {"path": "./auth.py:auth"}}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    ada, bob, nobody = ({"authorization": f"Bearer of-{name}"} for name in ("ada-lovelace", "bob", "nobody-much"))
    async with start(config=tmp_path / "langgraph.json") as client:
        said_so = await client.http.post("/chat", json={"message": "hi ada-lovelace", "stream": False}, headers=ada)
        session_id = said_so.json()["session_id"]
        others = await client.http.get(f"/sessions/{session_id}/export", headers=bob)
        file = (await client.http.get(f"/sessions/{session_id}/export", headers=ada)).content
        made = await client.http.post("/sessions/import", content=file, headers=bob)
        refused = await client.http.post("/sessions/import", content=file, headers=nobody)
        seen = [
            [item["session_id"] for item in (await client.http.get("/sessions", headers=who)).json()["items"]]
            for who in (ada, bob, nobody)
        ]

        assert (others.status_code, made.status_code, refused.status_code) == (404, 201, 403)
        assert seen == [[session_id], [made.json()["session_id"]], []]
        assert _left(client) == {session_id, made.json()["session_id"]}
    assert not _holds(file, "ada-lovelace")


async def test_an_imported_session_still_waits_for_its_answer(asking: Client) -> None:
    asked = await asking.chat("hi")

    new = (await imported(asking, await exported(asking, asked[0].data["session_id"])))["session_id"]

    assert (await asking.json("/sessions"))["items"][0]["status"] == "interrupted"
    resume = {"interrupt_id": asked[2].data["id"], "value": "this"}
    answered = await asking.read("POST", "/chat", json={"session_id": new, "resume": resume})
    assert answered[-2].data["content"] == "you said this"
    [row] = (await asking.json(f"/sessions/{new}/history"))["items"]
    assert row["assistant_message"] == "you said this"
    waiting = await asking.json(f"/sessions/{asked[0].data['session_id']}/checkpoints")
    assert waiting["items"][0]["next"] == ["ask"]


async def test_without_its_graph_it_is_shown_and_replayed(start: Start, tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(GRAPH)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"asker": "./asking.py:agent"}}')
    async with start(config=tmp_path / "langgraph.json") as client:
        asked = await client.chat("hi")
        file = await exported(client, asked[0].data["session_id"])
        before = await replay(client, asked[0].data["session_id"], "recorded")

    async with running(tmp_path / "elsewhere") as other:
        made = await imported(other, file)
        new = made["session_id"]
        document = await other.json(f"/sessions/{new}")
        played = await replay(other, new, "recorded")
        refused = await other.http.post("/chat", json={"message": "go on", "session_id": new})
        again = await exported(other, new)

    assert made["graph"] == {"id": "asker", "served": False, "changed": False}
    assert "asker is not served here" in made["note"]
    assert [m["content"] for m in document["messages"]] == ["hi"]
    assert told(played) == told(before)
    assert refused.status_code == 404
    assert "'asker' not found" in refused.json()["detail"]
    assert of_kind(opened(again), "header")[0]["graph"] == {"id": "asker", "fingerprint": None}


async def test_a_pruned_session_is_shared_as_it_is(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="stub") as client:
        session_id, _ = await three_turns(client, model)
    async with start(openai_base_url=model.url, model="stub", history_max_checkpoints=3, history_sweep=0.05) as client:
        async with asyncio.timeout(20):
            while len(await steps(client, session_id)) > 3:
                await asyncio.sleep(0.02)
    async with start(openai_base_url=model.url, model="stub") as client:
        new = (await imported(client, await exported(client, session_id)))["session_id"]

        assert await states(client, new) == await states(client, session_id)
        assert len((await client.json(f"/sessions/{new}"))["messages"]) == 6


async def test_a_session_at_work_is_not_shared(scripted: Client, model: ModelStub) -> None:
    gate = asyncio.Event()
    model.script(intent(), answer("one ", gate, "two"))
    async with scripted.stream("POST", "/chat", json=said("hi")) as frames:
        session_id = (await anext(frames)).data["session_id"]
        busy = await scripted.http.get(f"/sessions/{session_id}/export")
        gate.set()
        async for _ in frames:
            pass
    done = await scripted.http.get(f"/sessions/{session_id}/export")

    assert (busy.status_code, busy.json()["kind"]) == (409, "conflict")
    assert done.status_code == 200


async def test_the_commands(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    session_id, _ = await three_turns(scripted, model)
    url = str(scripted.http.base_url)

    async def command(*words: str) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from threadline.app.cli import main; main()", *words, "--url", url),
            env=CLEAN,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out, err

    file = tmp_path / "talk.jsonl.gz"
    code, out, _ = await command("export", session_id)
    file.write_bytes(out)
    assert code == 0
    assert content(out) == content(await exported(scripted, session_id))
    assert (await command("export", session_id, "--output", str(tmp_path / "other.gz")))[0] == 0
    code, _, err = await command("export", session_id, "-o", str(file))
    assert (code, b"is there already" in err) == (1, True)
    code, out, _ = await command("import", str(file))
    assert code == 0
    [new] = re.findall(r"^Imported as session (\S+): 3 turns, 3 runs, 13 checkpoints\.$", out.decode(), re.MULTILINE)
    assert set(await sessions(scripted)) == {session_id, new}
    file.write_bytes(file.read_bytes()[:500])
    code, out, err = await command("import", str(file))
    assert (code, out, err) == (1, b"", b"threadline: The file is cut off.\n")
    assert (await command("import", str(tmp_path / "none")))[0] == 1


# Secrets

SECRET = "sk-or-v1-0123456789abcdef0123456789abcdef"


async def test_no_secret_goes_out(start: Start, model: ModelStub) -> None:
    own = "the-own-key-of-the-service"
    model.script(intent(), answer("your key is ", SECRET[:9], SECRET[9:20], SECRET[20:], " and that is all"))
    message = f"password=hunter22, redis://me:pw12345@host, Bearer abcdef123456, AKIAIOSFODNN7EXAMPLE and {own}"
    async with start(openai_base_url=model.url, model="stub", openai_api_key=own) as client:
        frames = await client.chat(message)
        session_id = frames[0].data["session_id"]
        file = await exported(client, session_id)
        made = await imported(client, file)
        twice = await exported(client, made["session_id"])
        document = await client.json(f"/sessions/{made['session_id']}")
        played = await replay(client, made["session_id"], "recorded")
        model.script(intent(), answer("fine"))
        going_on = await client.chat("go on", made["session_id"])

    for secret in (
        SECRET,
        SECRET[9:20],
        SECRET[20:],
        "hunter22",
        "pw12345",
        "abcdef123456",
        "AKIAIOSFODNN7EXAMPLE",
        own,
    ):
        assert not _holds(file, secret), secret
    assert _holds(file, "and that is all")
    [end] = of_kind(opened(file), "end")
    assert end["redacted"]["known"] > 0
    assert end["redacted"]["shape"] > 0
    assert document["messages"][1]["content"] == "your key is [redacted] and that is all"
    assert "".join(f.data["text"] for f in played if f.event == "token") == "your key is [redacted] and that is all"
    assert going_on[-1].event == "done"
    assert content(twice) == content(file)


def _holds(file: bytes, text: str) -> bool:
    """Whether a text stands in a file, also within what is serialized."""
    raw = text.encode()
    return any(
        raw in json.dumps(line, ensure_ascii=False).encode() or raw in b64decode(line.get("data") if kind else "")
        for line in opened(file)
        for kind in (line["kind"] in ("checkpoint", "write"),)
    )


# Bad files


async def test_files_that_are_refused(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    file = await exported(scripted, session_id)
    lines = opened(file)
    before = await sessions(scripted)
    newer = [{**lines[0], "version": 2}, *lines[1:]]
    checkpoints = [n for n, line in enumerate(lines) if line["kind"] == "checkpoint"]
    first, second = checkpoints[:2]

    def changed(number: int, **fields: Any) -> Lines:
        return [{**line, **fields} if n == number else line for n, line in enumerate(lines)]

    run = next(n for n, line in enumerate(lines) if line["kind"] == "run")
    event = next(n for n, line in enumerate(lines) if line["kind"] == "event")
    cases: dict[str, tuple[bytes, int, str]] = {
        "empty": (b"", 422, "empty"),
        "text": (b"hello\n", 422, "header"),
        "cut": (file[: len(file) // 2], 422, "cut off"),
        "cut before the end": (packed(lines, end=False), 422, "last line is missing"),
        "a byte": (file[:2000] + bytes([file[2000] ^ 1]) + file[2001:], 422, "damaged"),
        "something behind": (file + b"x", 422, "behind its end"),
        "newer": (packed(newer), 409, "newer version"),
        "circle": (packed(changed(first, parent=lines[second]["id"])), 422, "before its parent"),
        "own parent": (packed(changed(first, parent=lines[first]["id"])), 422, "before its parent"),
        "unknown parent": (packed(changed(second, parent="nothing")), 422, "before its parent"),
        "pending": (packed(changed(run, status="pending")), 422, "status"),
        "another's field": (packed(changed(run, owner="me")), 422, "owner"),
        "no event": (packed(changed(event, data={})), 422, "no event"),
        "pickle": (packed(changed(first, type="pickle")), 422, "type"),
        "no state": (packed(changed(first, data="AAAA")), 422, "Checkpoint"),
        "line": (gzip.compress(b'{"kind":"' + b"x" * (17 * 2**20)), 422, "too long"),
    }
    for name, (body, status, words) in cases.items():
        response = await scripted.http.post("/sessions/import", content=body)
        assert (response.status_code, words in response.json()["detail"]) == (status, True), (name, response.text)

    assert await sessions(scripted) == before
    assert _left(scripted) == {session_id}


def _left(client: Client) -> set[str]:
    """The threads there is anything of, in both databases."""
    assert client.context is not None
    folder = client.context.share._folder
    found: set[str] = set()
    databases = {"checkpoints.db": ("checkpoints", "writes"), "history.db": ("runs", "run_logs", "imports")}
    for name, tables in databases.items():
        connection = sqlite3.connect(folder / name)
        for table in tables:
            found |= {row[0] for row in connection.execute(f"SELECT DISTINCT thread_id FROM {table}")}
        connection.close()
    return found


async def test_a_small_file_that_unpacks_to_much(start: Start) -> None:
    async with start(max_import_bytes=50_000) as client:
        bomb = gzip.compress((b" " * 70 + b"\n") * 100_000)
        assert len(bomb) < 50_000
        unpacked = await client.http.post("/sessions/import", content=bomb)
        large = await client.http.post("/sessions/import", content=b"x" * 2_000_000)
        other = await client.http.post("/chat", content=b"x" * 2_000_000)

    assert unpacked.status_code == 422
    assert (large.status_code, other.status_code) == (413, 413)


async def test_nothing_in_a_file_is_built(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    session_id, _ = await three_turns(scripted, model)
    lines = opened(await exported(scripted, session_id))
    mark = tmp_path / "built"
    command = ormsgpack.packb(["os", "system", f"touch {mark}"])
    posargs = ormsgpack.packb(["os", "system", [f"touch {mark}"]])
    kwargs = ormsgpack.packb(["subprocess", "Popen", {"args": ["touch", str(mark)]}])
    method = ormsgpack.packb(["pathlib", "Path", str(mark), "touch"])
    lc = {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [f"touch {mark}"], "kwargs": {}}
    hostile = [ormsgpack.Ext(0, command), ormsgpack.Ext(1, posargs), ormsgpack.Ext(2, kwargs), ormsgpack.Ext(3, method)]
    hostile += [ormsgpack.Ext(4, kwargs), ormsgpack.Ext(5, kwargs), ormsgpack.Ext(77, b"x"), lc]
    for line in of_kind(lines, "checkpoint"):
        state = ormsgpack.unpackb(b64decode(line["data"]), ext_hook=ormsgpack.Ext, option=ormsgpack.OPT_NON_STR_KEYS)
        state["channel_values"]["intent"] = hostile
        line["data"] = b64encode(ormsgpack.packb(state, option=ormsgpack.OPT_NON_STR_KEYS)).decode()
    write = of_kind(lines, "write")[0]
    write["type"], write["data"] = "json", b64encode(json.dumps(lc).encode()).decode()

    response = await scripted.http.post("/sessions/import", content=packed(lines))
    if response.status_code == 201:
        new = response.json()["session_id"]
        for step in await steps(scripted, new):
            await scripted.http.get(f"/sessions/{new}/checkpoints/{step['checkpoint_id']}")
        await replay(scripted, new, "recorded")

    assert response.status_code in (201, 422)
    assert not mark.exists()


async def test_an_import_that_a_crash_cut_off_leaves_nothing(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="stub") as client:
        session_id, _ = await three_turns(client, model)
        file = await exported(client, session_id)
        exchange = client.context.share._exchange
        finish, abandon = exchange.finish, exchange.abandon

        async def crash(*_: Any, **__: Any) -> None:
            raise ConnectionAbortedError

        exchange.finish = exchange.abandon = crash
        with pytest.raises(ConnectionAbortedError):
            await client.context.share.import_(client.context.keys.caller(None), _body(file))
        exchange.finish, exchange.abandon = finish, abandon
        assert len(_left(client)) == 2
        assert await sessions(client) == [session_id]

    async with start(openai_base_url=model.url, model="stub") as client:
        assert _left(client) == {session_id}
        assert await sessions(client) == [session_id]


async def _body(file: bytes) -> AsyncIterator[bytes]:
    yield file
