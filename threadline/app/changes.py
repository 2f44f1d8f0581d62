"""What the command line says of a re-run's changes, as the service takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadline.domain.errors import Invalid


def changes(
    *,
    model: str | None = None,
    temperature: float | None = None,
    message: str | None = None,
    prompts: Sequence[str] = (),
    state: str | None = None,
    as_node: str | None = None,
    tools: str | None = None,
    models: str | None = None,
    answers: Sequence[str] = (),
) -> dict[str, Any]:
    """The `changes` of a replay body, without what was not said. Raises Invalid with words for who typed it."""
    given: dict[str, Any] = {
        "model": model,
        "temperature": temperature,
        "message": message,
        "prompts": {name: _prompt(value) for name, value in _pairs("--prompt", prompts)},
        "state": _state(state, as_node),
        "tools": tools,
        "models": models,
        "answers": {name: _text(value) for name, value in _pairs("--answer", answers)},
    }
    return {name: value for name, value in given.items() if value not in (None, {})}


def _pairs(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given]
    for name, sign, _ in pairs:
        if not (name and sign):
            raise Invalid(f"{option} takes NAME=VALUE.")
    return [(name, value) for name, _, value in pairs]


def _prompt(value: str) -> str | dict[str, str]:
    return {"text": _text(value)} if value.startswith("@") else value


def _text(value: str) -> str:
    """A text, or that of the file `@file`."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value.removeprefix("@")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{value.removeprefix('@')} cannot be read as text.") from error


def _state(values: str | None, as_node: str | None) -> dict[str, Any] | None:
    if values is None:
        if as_node is not None:
            raise Invalid("--as-node goes with --state.")
        return None
    try:
        given = json.loads(_text(values))
    except ValueError as error:
        raise Invalid("--state takes a JSON object.") from error
    if not isinstance(given, dict):
        raise Invalid("--state takes a JSON object.")
    return {"values": given, **({"as_node": as_node} if as_node is not None else {})}
