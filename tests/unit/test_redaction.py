"""Redaction: what is taken out, what is not, and what is left of the value."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic import SecretStr

from threadline.domain.events import Event
from threadline.services import packed
from threadline.services.exporting import redacted
from threadline.services.redaction import MASK, Redactor, named_like_secrets
from threadline.storage.serde import strict_serializer


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key sk-or-v1-0123456789abcdef0123 end", "key [redacted] end"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: [redacted]"),
        ("a bearer abcdefghijkl b", "a bearer [redacted] b"),
        ("authorization: Basic Zm9vOmJhcg==", "authorization: [redacted]"),
        ("redis://user:pw123@host:1/0", "redis://[redacted]@host:1/0"),
        ('{"password": "hunter2", "x":1}', '{"password": "[redacted]", "x":1}'),
        (r'"{\"api_key\":\"zzzzzz\"}"', r'"{\"api_key\":\"[redacted]\"}"'),
        ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
        ("ghp_abcdefghijklmnopqrstuvwx", "[redacted]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "[redacted]"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nrest", "[redacted]\nrest"),
        ("HF_TOKEN=abcd1234 and DB_PASSWORD='x y'", "HF_TOKEN=[redacted] and DB_PASSWORD='x y'"),
        ("my own-secret-of-ours!", "my [redacted]!"),
        ("What is (15+27)*3?", "What is (15+27)*3?"),
        ("max tokens: 1000, total_tokens=12", "max tokens: 1000, total_tokens=12"),
        ("https://example.com/a?b=1 at 10:30", "https://example.com/a?b=1 at 10:30"),
        ("비밀번호는 없습니다", "비밀번호는 없습니다"),
        ("token=[redacted]", "token=[redacted]"),
    ],
)
def test_texts(text: str, left: str) -> None:
    redactor = Redactor(["own-secret-of-ours"])

    once = redactor.text(text)

    assert once == left
    assert redactor.text(once) == once
    assert sum(redactor.counts.values()) == (0 if text == left else 1)


def test_fields_called_like_secrets() -> None:
    redactor = Redactor()
    value = {"apiKey": "x", "n": [{"X-Auth-Token": {"a": ["b", 1]}}], "usage": {"total_tokens": 3}, "token_count": "7"}

    left = redactor.value(value)

    assert left == {
        "apiKey": MASK,
        "n": [{"X-Auth-Token": {"a": [MASK, 1]}}],
        "usage": {"total_tokens": 3},
        "token_count": "7",
    }
    assert redactor.counts == {"field": 2}
    assert value["apiKey"] == "x"


def test_what_holds_no_secret_stays_the_very_object() -> None:
    value = {"a": [1, "two", {"b": None}], "secret": None}

    assert Redactor(["none of it"]).value(value) is value


def test_names_of_variables() -> None:
    variables = {"OPENAI_API_KEY": "abcdefgh", "HOME": "/home/someone", "GITHUB_TOKEN": "tokentoken", "PIN_SECRET": "1"}

    assert named_like_secrets(variables) == {"abcdefgh", "tokentoken"}


def test_a_secret_that_was_streamed_in_pieces() -> None:
    pieces = ["the key is sk-", "0123456789", "abcdefgh", " and so on"]
    log = [_delta(number, text) for number, text in enumerate(pieces, start=1)]

    left = redacted(log, Redactor())

    assert [event.data["message"]["content"] for event in left] == ["the key is [redacted]", "", "", " and so on"]
    assert [event.data["message"]["content"] for event in log] == pieces


def _delta(id: int, text: str) -> Event:
    message = {"type": "AIMessageChunk", "id": "m", "content": text}
    return Event(id, "messages", (), {"message": message, "metadata": None}, 0.0)


def test_values_as_they_are_serialized() -> None:
    serde = strict_serializer(frozenset({("pydantic.types", "SecretStr")}))
    redactor = Redactor()
    state = {"said": HumanMessage("password: hunter22", id="1"), "key": SecretStr("x"), "n": [1.5, b"\x00", (1, 2)]}
    type_, data = serde.dumps_typed(state)

    changed, opened = packed.rewritten(type_, data, redactor.value)

    left: Any = serde.loads_typed((type_, changed))
    assert left["said"] == HumanMessage("password: [redacted]", id="1")
    assert b"hunter22" not in changed
    assert left["n"] == [1.5, b"\x00", [1, 2]]
    assert redactor.counts["field"] == 1  # the pydantic secret
    assert packed.readable(opened)["said"]["content"] == "password: [redacted]"


def test_what_needs_no_change_keeps_its_bytes() -> None:
    type_, data = strict_serializer().dumps_typed({"a": HumanMessage("hi"), 1: {"x"}})

    assert packed.rewritten(type_, data, Redactor(["zzzzzz"]).value)[0] is data


@pytest.mark.parametrize(
    "text", ["a.b-c_" * 50_000, "password" * 50_000, "a_" * 100_000, "http://" + "a:" * 50_000, "token=" * 50_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    Redactor().text(text)

    assert time.process_time() - began < 3
