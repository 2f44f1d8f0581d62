"""A file that was changed anywhere is refused or is a whole session: never a fault of the service, never half one."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service import Client
from tests.spec.test_replay import replay, three_turns
from tests.spec.test_share import Lines, _left, exported, opened, packed, sessions
from tests.stubs.model_server import ModelStub

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 2**31, 2**63, 2**70, 1.5, "", "\x00", "\ud800", "x", "..", "pending", [], {}, [[]], {"a": 1}]
    ),
    st.text(max_size=8),
)
STATE = ("checkpoint", "write")
PLACES = st.integers(0, 10**6)


@st.composite
def of_bytes(draw: st.DrawFn, file: bytes) -> bytes:
    """The packed file with a few bytes changed, cut out or put in."""
    changed = bytearray(file)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(PLACES) % len(changed) if changed else 0
        match draw(st.sampled_from(["flip", "cut", "put", "end"])):
            case "flip" if changed:
                changed[at] ^= draw(st.integers(1, 255))
            case "cut":
                del changed[at : at + draw(st.integers(1, 50))]
            case "put":
                changed[at:at] = draw(st.binary(min_size=1, max_size=20))
            case "end":
                del changed[at:]
    return bytes(changed)


@st.composite
def of_lines(draw: st.DrawFn, lines: Lines) -> bytes:
    """The file with a line changed, twice there, gone or elsewhere, and a last line that fits all the same."""
    changed = deepcopy(lines[:-1])
    for _ in range(draw(st.integers(1, 2))):
        at = draw(PLACES) % len(changed)
        match draw(st.sampled_from(["value", "value", "value", "state", "state", "drop", "double", "move"])):
            case "value":
                _replace(draw, changed[at])
            case "state":
                of_state = [
                    line for line in changed if line.get("kind") in ("checkpoint", "write") and line.get("data")
                ]
                _spoil(draw, of_state[at % len(of_state)])
            case "drop":
                del changed[at]
            case "double":
                changed.insert(at, deepcopy(changed[at]))
            case "move":
                changed.insert(draw(PLACES) % len(changed), changed.pop(at))
    return packed(changed)


def _replace(draw: st.DrawFn, value: Any) -> None:
    """Put something else in the place of a part of a value, however deep."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[draw(PLACES) % len(keys)]
        if isinstance(value[key], dict | list) and value[key] and draw(st.booleans()):
            value = value[key]
            continue
        if isinstance(value, dict) and draw(st.integers(0, 3)) == 0:
            del value[key]
        else:
            value[key] = draw(VALUES)
        return


def _spoil(draw: st.DrawFn, line: dict[str, Any]) -> None:
    if not isinstance(line["data"], str):
        return
    data = bytearray(b64decode(line["data"] + "=" * (-len(line["data"]) % 4)))
    if data:
        data[draw(PLACES) % len(data)] ^= draw(st.integers(1, 255))
    line["data"] = b64encode(data).decode()


async def _try(client: Client, file: bytes, before: set[str]) -> bool:
    """Bring the file; whether it was taken."""
    response = await client.http.post("/sessions/import", content=file)
    assert response.status_code in (201, 409, 422), (response.status_code, response.text)
    if response.status_code != 201:
        detail = response.json()["detail"]
        assert detail
        assert "\n" not in detail
        assert _left(client) == before
        return False
    new = response.json()["session_id"]
    assert (await client.http.get(f"/sessions/{new}")).status_code == 200
    assert (await replay(client, new, "recorded"))[-1].event == "replay_done"
    listed = await client.http.get(f"/sessions/{new}/checkpoints", params={"limit": 500})
    assert listed.status_code in (200, 404), listed.text
    assert (await client.http.get(f"/sessions/{new}/export")).status_code == 200
    assert (await client.http.delete(f"/sessions/{new}")).status_code == 204
    assert _left(client) == before
    return True


@pytest.mark.parametrize("how", [of_bytes, of_lines])
@pytest.mark.parametrize(
    "examples", [150, pytest.param(2000, marks=[pytest.mark.long, pytest.mark.timeout(900)])], ids=["short", "long"]
)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
async def test_changed_files(scripted: Client, model: ModelStub, how: Any, examples: int) -> None:
    session_id, _ = await three_turns(scripted, model)
    file = await exported(scripted, session_id)
    loop = asyncio.get_running_loop()
    outcomes: list[bool] = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples == 150,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(how(file if how is of_bytes else opened(file)))
    def tried(changed: bytes) -> None:
        done = asyncio.run_coroutine_threadsafe(_try(scripted, changed, {session_id}), loop)
        outcomes.append(done.result(60))

    await asyncio.to_thread(tried)

    assert outcomes.count(False) > 50
    assert await sessions(scripted) == [session_id]
    if how is of_lines:
        assert outcomes.count(True) > 5
