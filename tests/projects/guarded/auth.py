"""Handlers that say yes and no as the request asks them to, and keep what they were asked.

The `authorization` header names who asks: `admin` may do everything, anybody else what is theirs, which they mark with
their name. `x-deny` names what is refused, `x-asked` marks the request. `editor` changes what is asked. No run is
told "swear".
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from langgraph_sdk import Auth

ASKED = Path(__file__).with_name("asked.jsonl")

auth = Auth()


@auth.authenticate
async def who(headers: dict[bytes, bytes]) -> dict[str, Any]:
    def given(name: bytes) -> str:
        return headers.get(name, b"").decode()

    if not given(b"authorization"):
        raise Auth.exceptions.HTTPException(status_code=401, detail="Who are you?")
    deny, asked = given(b"x-deny"), given(b"x-asked")
    return {"identity": given(b"authorization"), "permissions": ["p"], "deny": deny, "asked": asked}


@auth.on
async def handler(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> Auth.types.HandlerResult:
    what, identity = f"{ctx.resource}.{ctx.action}", ctx.user.identity
    await asyncio.to_thread(_keep, {"asked": ctx.user["asked"], "what": what, "value": value})
    if ctx.user["deny"] == what:
        return False
    if what == "threads.create_run" and "swear" in str(value["kwargs"]["input"]):
        raise Auth.exceptions.HTTPException(status_code=402, detail="That costs.")
    if identity == "admin":
        return None
    if identity == "editor":
        return _edit(what, value)
    if ctx.action in ("create", "create_run"):
        value.setdefault("metadata", {})["owner"] = identity  # in place: `langgraph dev` does not look at another
    return {"owner": identity}


def _edit(what: str, value: dict[str, Any]) -> None:
    if what.endswith("search") and not what.startswith("store"):
        value.setdefault("metadata", {})["kind"] = "open"
        value["limit"] = min(value.get("limit", 0), 1)
    if what == "threads.create":
        value["metadata"] = {**value["metadata"], "edited": True}
    if what == "threads.create_run":
        value["metadata"]["edited"] = True
        value["kwargs"]["config"]["configurable"]["tenant"] = "t1"
        value["kwargs"]["input"]["messages"][0]["content"] = "as the handler has it"
    if what == "assistants.create":
        value["name"], value["config"] = "named", {"configurable": {"tenant": "t2"}}
    if what == "crons.create":
        value["schedule"] = "0 0 2 1 *"


def _keep(line: dict[str, Any]) -> None:
    with ASKED.open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")
