"""The tools of the built-in agent: which there are, what they can do, and why one is not there."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.context import Asking, Using

router = APIRouter(prefix="/tools", tags=["tools"])


@router.get("", summary="Every tool of the built-in agent: whether it is offered, and why not")
async def tools(caller: Asking, context: Using) -> dict[str, Any]:
    return {"items": context.tools}
