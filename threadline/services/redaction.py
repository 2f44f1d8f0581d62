"""Takes secrets out of what is handed on: those that are known, what looks like one, and what stands in a field that
is called like one.

It goes by rules and knows no more than these: a password in a plain sentence is not found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, MutableSequence
from functools import lru_cache
from typing import Any

from threadline.services.packed import Ext

MASK = "[redacted]"
CLEAN, SHORT = 10_000, 200
"""Texts known to hold no secret that are remembered, and how long one may be: names and ids come again and again."""
LEAST = 6
"""Characters of a known secret that is looked for within texts; a shorter one would be found everywhere."""

FIELD = re.compile(
    r"(apikey|accesskey|privatekey|secretkey|token|password|passwd|passphrase|secret|authorization|credentials?|cookie)$"
)
"""The end of a field's name, in small letters without what stands between its words."""
_SEPARATORS = re.compile(r"[^a-z0-9]")
_SECRET_TYPES = frozenset({"SecretStr", "SecretBytes", "Secret"})

_NAMES = (
    r"api[_-]?key|access[_-]?key|private[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token|refresh[_-]?token|token"
    r"|password|passwd|passphrase|client[_-]?secret|secret|authorization"
)
_BEFORE = r"(?<![A-Za-z0-9])"
SHAPES = re.compile(
    "|".join(
        (
            rf"{_BEFORE}(?:sk|pk|rk)-[A-Za-z0-9_-]{{16,}}",  # OpenAI, OpenRouter, Anthropic
            rf"{_BEFORE}(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{{16,}}",
            rf"{_BEFORE}(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}(?![A-Z0-9])",
            rf"{_BEFORE}(?:gh[pousr]_|github_pat_|glpat-|hf_|npm_|tvly-|whsec_)[A-Za-z0-9_+/=-]{{16,}}",
            rf"{_BEFORE}xox[a-z]-[A-Za-z0-9-]{{10,}}",
            rf"{_BEFORE}AIza[A-Za-z0-9_-]{{35}}",
            rf"{_BEFORE}eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]*",
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]+?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
            rf"(?i:{_BEFORE}bearer)\s{{1,3}}(?P<bearer>[A-Za-z0-9._~+/=-]{{8,}})",
            rf"(?i:{_BEFORE}[a-z][a-z0-9+.-]{{1,20}}://)(?P<login>[^\s/@:]{{0,200}}:[^\s/@]{{1,200}})(?=@)",
            rf"(?i:{_BEFORE}(?:[a-z0-9]{{1,32}}[_-]){{0,4}}(?:{_NAMES}))\\{{0,3}}[\"']?\s{{0,3}}[:=]\s{{0,3}}\\{{0,3}}[\"']?"
            r"(?P<named>(?i:(?:basic|bearer|token)\s{1,3})?[^\s\"',;&}\\\[\]]{4,})",
        )
    )
)
_GROUPS = ("bearer", "login", "named")
_HINT = re.compile(
    r"[spr]k[-_]|A(?:KI|SI|BI|CC)A|gh[pousr]_|_pat_|glpat-|hf_|npm_|tvly-|whsec_|xox|AIza|eyJ|PRIVATE|://"
    r"|(?i:bearer|key|token|passw|passphrase|secret|authorization)"
)
"""Stands in every text that a shape is in: most texts have none of it."""

Span = tuple[int, int, str]


class Redactor:
    """One pass over something that is handed on; `counts` says by which rule how much was taken out."""

    def __init__(self, known: Collection[str] = ()) -> None:
        known = {secret for secret in known if secret and secret != MASK}
        within = sorted((re.escape(secret) for secret in known if len(secret) >= LEAST), key=len, reverse=True)
        self._known = re.compile("|".join(within)) if within else None
        self._short = frozenset(secret for secret in known if len(secret) < LEAST)
        self._clean = set[str]()
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        if text in self._clean:
            return text
        spans = self._spans(text)
        if spans:
            return _masked(text, spans)
        if len(text) <= SHORT and len(self._clean) < CLEAN:
            self._clean.add(text)
        return text

    def value(self, value: Any) -> Any:
        """The value without secrets, however deep; the very object where there are none."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list):
            items = [self.value(item) for item in value]
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if isinstance(value, Ext):
            made = self._masked_object(value) or self.value(value.value)
            return value if made is value.value else Ext(value.code, made)
        if isinstance(value, bytes):
            return self._bytes(value)
        return value

    def pieces(self, holders: Iterable[tuple[MutableSequence[Any] | dict[str, Any], Any]]) -> None:
        """Take out, in place, what is found in a text that came in pieces. Each piece is a container and its key."""
        places = list(holders)
        texts = [str(holder[key]) for holder, key in places]
        spans = self._spans("".join(texts))
        if not spans:
            return
        start = 0
        for (holder, key), piece in zip(places, texts, strict=True):
            end = start + len(piece)
            # What a secret begins in gets the mask; of the pieces that it goes on in, its part is left out.
            kept, at = "", start
            for begin, stop, _ in spans:
                if stop <= at or begin >= end:
                    continue
                kept += piece[at - start : max(begin, at) - start] + (MASK if begin >= start else "")
                at = min(stop, end)
            holder[key] = kept + piece[at - start :]
            start = end

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        changed = False
        result: dict[Any, Any] = {}
        for key, item in value.items():
            named = self.text(key) if isinstance(key, str) else key
            while named is not key and (named in result or named in value):
                named = f"{named} "
            kept = self._all(item) if isinstance(key, str) and _is_secret(key) else self.value(item)
            changed = changed or kept is not item or named is not key
            result[named] = kept
        return result if changed else value

    def _all(self, value: Any) -> Any:
        """The value of a field that is called like a secret: none of its texts stays. Numbers do."""
        if isinstance(value, str | bytes):
            if not value or value in (MASK, MASK.encode()):
                return value
            self.counts["field"] += 1
            return MASK if isinstance(value, str) else MASK.encode()
        if isinstance(value, Mapping):
            items = {key: self._all(item) for key, item in value.items()}
            return items if any(items[key] is not value[key] for key in value) else value
        if isinstance(value, list):
            each = [self._all(item) for item in value]
            return each if any(a is not b for a, b in zip(each, value, strict=True)) else value
        if isinstance(value, Ext):
            if isinstance(value.value, list):
                head, rest = value.value[:2], value.value[2:]
                made = [*head, self._all(rest[0]), *rest[1:]] if rest and rest[0] is not None else value.value
                return Ext(value.code, made) if rest and made[2] is not rest[0] else value
            return value
        return value

    def _masked_object(self, value: Ext) -> list[Any] | None:
        """What a pydantic secret is made of, masked."""
        made = value.value
        if not (isinstance(made, list) and len(made) > 2 and made[1] in _SECRET_TYPES):
            return None
        masked = self._all(made[2])
        return None if masked is made[2] else [*made[:2], masked, *made[3:]]

    def _bytes(self, value: bytes) -> bytes:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return value
        kept = self.text(text)
        return value if kept is text else kept.encode()

    def _spans(self, text: str) -> list[Span]:
        """Where secrets stand, in order, none over another."""
        if text in self._short:
            self.counts["known"] += 1
            return [(0, len(text), "known")]
        found: list[Span] = []
        if self._known is not None:
            found += [(*match.span(), "known") for match in self._known.finditer(text)]
        if _HINT.search(text) is not None:
            for match in SHAPES.finditer(text):
                group = next((name for name in _GROUPS if match[name] is not None), 0)
                found.append((*match.span(group), "shape"))
        spans: list[Span] = []
        for span in sorted(found):
            if MASK in text[span[0] : span[1]] and span[2] == "shape":
                continue
            if spans and span[0] < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]), spans[-1][2])
                continue
            spans.append(span)
        if spans:
            self.counts.update(span[2] for span in spans)
        return spans


def named_like_secrets(values: Mapping[str, str]) -> set[str]:
    """The values, such as those of environment variables, whose names are called like secrets."""
    return {value for name, value in values.items() if len(value) >= LEAST and _is_secret(name)}


@lru_cache(CLEAN)
def _is_secret(name: str) -> bool:
    return FIELD.search(_SEPARATORS.sub("", name.lower())) is not None


def _masked(text: str, spans: list[Span]) -> str:
    result, at = "", 0
    for begin, end, _ in spans:
        result += text[at:begin] + MASK
        at = end
    return result + text[at:]
