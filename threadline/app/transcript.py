"""Shows a stream of chat frames on a terminal, or in a pipe, line by line as things happen."""

from __future__ import annotations

import json
import shutil
import unicodedata
from itertools import accumulate, takewhile
from typing import Any, TextIO

from threadline.app.client import Frame

_LONGEST = 500  # columns of a tool's arguments or result in a pipe; a terminal shows what fits in a line
_FORBIDDEN = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Transcript:
    """`live` says that `out` is a terminal: a line may then be shown before it is finished, and coloured. `replaying`
    names the run that each stretch of a replay is of.

    After a stream, `session_id`, `interrupt` (the first `{id, value}` that waits, or None) and `failed` tell how it
    ended.
    """

    def __init__(self, out: TextIO, *, live: bool, replaying: bool = False) -> None:
        self.session_id: str | None = None
        self.interrupt: dict[str, Any] | None = None
        self.failed = False
        self._out = out
        self._live = live
        self._replaying = replaying
        self._begun: str | None = None  # the unfinished line on display
        self._in_text = False  # streamed text is waiting for its line end
        self._streamed = False

    def begin(self) -> None:
        """A new stream follows."""
        self.interrupt, self.failed, self._streamed = None, False, False

    def show(self, frame: Frame) -> None:
        shown = getattr(self, f"_show_{frame.event}", None)
        if shown is not None:
            shown(frame.data)

    def note(self, text: str) -> None:
        """A remark of the command's own."""
        self._end_line()
        self._write(self._dim(clean(text)) + "\n")

    def close(self) -> None:
        """Leave the cursor at the start of a line."""
        self._end_line()

    # One method for each kind of frame

    def _show_session(self, data: dict[str, Any]) -> None:
        if self._replaying:
            rebuilt = f", rebuilt from {data['rebuilt']}: the recording is gone" if "rebuilt" in data else ""
            self.note(f"── run {data['run_id']}{rebuilt}")
        elif data["session_id"] != self.session_id:
            self.note(f"session {data['session_id']}")
        self.session_id = data["session_id"]

    def _show_node(self, data: dict[str, Any]) -> None:
        name = "/".join([*data.get("path", ()), data["node"]])
        if data["status"] == "started":
            self._begin(f"  ▸ {name} …")
        else:
            mark = "✗" if data["status"] == "failed" else "▸"
            recorded = ", recorded" if data.get("recorded") else ""
            self._finish(f"  ▸ {name} …", f"  {mark} {name} … {_ms(data['ms'])}{recorded}")

    def _show_intent(self, data: dict[str, Any]) -> None:
        confidence = data.get("confidence")
        sure = f" ({confidence:.0%})" if isinstance(confidence, int | float) else ""
        self._finish(None, f"    intent: {data['kind']}{sure}")

    def _show_tool(self, data: dict[str, Any]) -> None:
        call = f"    {data['name']} {_compact(data['args'])}"
        if data["status"] == "started":
            self._begin(f"{call} …")
            return
        outcome = f"→ {_compact(data['result'])}" if data["status"] == "finished" else f"✗ {data['error']}"
        source = ", recorded" if data.get("recorded") else ", cached" if data.get("cached") else ""
        self._finish(f"{call} …", f"{call} {outcome}", ending=f"  {_ms(data.get('ms'))}{source}")

    def _show_token(self, data: dict[str, Any]) -> None:
        if not self._in_text:
            self._end_line()
        self._write(clean(data["text"]))
        self._in_text = self._streamed = True

    def _show_message(self, data: dict[str, Any]) -> None:
        text = _text(data.get("content"))
        if text and not self._streamed:
            self._end_line()
            self._write(clean(text) + "\n")

    def _show_interrupt(self, data: dict[str, Any]) -> None:
        self.interrupt = self.interrupt or data
        value = data["value"]
        self._end_line()
        self._write(f"The agent asks: {clean(value if isinstance(value, str) else _compact(value))}\n")

    def _show_error(self, data: dict[str, Any]) -> None:
        self.failed = True
        self._end_line()
        again = " Sending it again may help." if data.get("retryable") else ""
        self._write(f"✗ {clean(data['message'])}{again}\n")

    def _show_done(self, data: dict[str, Any]) -> None:
        usage = data.get("usage") or {}
        tokens, recorded = usage.get("total_tokens"), usage.get("recorded_calls")
        parts = [
            data["status"],
            f"{tokens} tokens" if tokens is not None else "",
            f"model calls: {usage['model_calls']} made, {recorded} recorded" if recorded is not None else "",
            f"${data['cost']:.4f}" if data.get("cost") else "",
            _ms(data.get("ms")),
        ]
        self.note("  " + " · ".join(part for part in parts if part))
        self._streamed = False

    # Lines

    def _begin(self, line: str) -> None:
        """Show a line that will be finished later. Only a terminal can take it back, so a pipe waits for the end."""
        if not self._live:
            return
        self._end_line()
        self._begun = line
        self._write(self._dim(fit(clean(line), _columns() - 1)))

    def _finish(self, begun: str | None, line: str, *, ending: str = "") -> None:
        """Show a whole line, in the place of its beginning if nothing came between."""
        if self._begun is not None and self._begun == begun:
            self._write("\r\x1b[K")
            self._begun = None
        self._end_line()
        room = (_columns() - 1 if self._live else _LONGEST) - len(ending)
        self._write(self._dim(fit(clean(line), room) + ending) + "\n")

    def _end_line(self) -> None:
        if self._begun is not None or self._in_text:
            self._write("\n")
        self._begun, self._in_text = None, False

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._live else text

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def clean(text: str) -> str:
    """The text without the control characters by which what a model or a tool says could steer the terminal."""
    return text.translate(_FORBIDDEN)


def width(text: str) -> int:
    """Columns the text takes: Korean and other wide characters take two."""
    return sum(map(_columns_of, text))


def fit(text: str, columns: int) -> str:
    """The text on one line of at most so many columns, an ellipsis for what is cut."""
    text = " ".join(text.splitlines())
    if width(text) <= columns:
        return text
    ends = accumulate(map(_columns_of, text))
    return text[: sum(1 for _ in takewhile(lambda end: end < columns, ends))] + "…"


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.0f} ms"


def _text(content: Any) -> str:
    """The text of a message's content, plain or in blocks."""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content or () if isinstance(block, dict))
