"""`threadline branches` and `threadline compare`, as somebody types them."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.service import CLEAN, ROOT, Client
from tests.spec.test_branches import forked, tree
from tests.stubs.model_server import ModelStub
from threadline.app.transcript import width


async def command(client: Client, *arguments: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "threadline", *arguments, "--url", str(client.http.base_url)),
        cwd=ROOT,
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_the_tree_and_what_can_be_done_with_it(scripted: Client, model: ModelStub) -> None:
    session_id, _, _ = await forked(scripted, model)
    old, new = await tree(scripted, session_id)

    code, out, _ = await command(scripted, "branches", session_id, "--name", new["branch_id"], "더 나은 답")
    assert code == 0
    head, first, second = out.splitlines()
    assert head.split() == ["BRANCH", "ID", "STEPS", "RUNS", "BEGAN"]
    assert first.split()[:4] == ["-", old["branch_id"], "13", "3"]
    assert second.startswith("*   더 나은 답  ")
    columns = {width(line.partition(old["branch_id"][:4])[0]) for line in (first, second)}
    assert columns == {head.index("ID")}  # Korean letters are two columns wide

    code, out, _ = await command(scripted, "branches", session_id, "--promote", old["branch_id"])
    assert (code, out.splitlines()[1].startswith("* -"), "main line" in out) == (0, True, True)
    code, _, err = await command(scripted, "branches", session_id, "--delete", "nobody's")
    assert (code, err) == (1, "threadline: This session has no branch nobody's.\n")
    code, out, _ = await command(scripted, "branches", session_id, "--delete", "더 나은 답", "--json")
    assert (code, [branch["branch_id"] for branch in json.loads(out)]) == (0, [old["branch_id"]])
    code, _, err = await command(scripted, "branches", session_id, "--delete", old["branch_id"])
    assert (code, "Switch to another one first" in err) == (1, True)


async def test_a_comparison(scripted: Client, model: ModelStub) -> None:
    session_id, turns, again = await forked(scripted, model)
    old, new = await tree(scripted, session_id)

    code, out, _ = await command(scripted, "compare", f"{session_id}@{old['branch_id']}", session_id)

    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"A  session {session_id}, branch {old['branch_id']}: 9 steps · ")
    assert lines[2] == "They begin with the same 2 checkpoints."
    assert lines[4:7] == ["First difference: step 2, respond: answer", "  - hello there", "  + another hello"]
    assert [line for line in lines if "respond" in line][1].startswith("~  2     respond")
    assert f"run {again[0].data['run_id']}" not in out

    a, b = turns[0][0].data["run_id"], again[0].data["run_id"]
    code, out, _ = await command(scripted, "compare", a, b, "--json")
    assert (code, json.loads(out)["b"]["run_id"]) == (0, b)
    code, out, _ = await command(scripted, "compare", session_id, session_id)
    assert (code, "No difference." in out) == (0, True)
    code, _, err = await command(scripted, "compare", session_id, a)
    assert (code, err.endswith("are not two sessions, and not two runs.\n")) == (1, True)
    code, _, err = await command(scripted, "compare", f"{session_id}@nobody", session_id)
    assert (code, "no branch nobody" in err) == (1, True)
    assert new["current"]
