"""How a streamed answer must end. A stream that merely stops looks like success to the client library.

Text passes through as it comes. What describes the whole answer (finish reason, model, usage, cost) is kept back and
leaves once, in the last chunk: servers repeat it, and merged chunks would add the repetitions up.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk

from threadline.domain.errors import ModelFault

_COMPLETE = ("stop", "tool_calls", "function_call")


class Ending:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.info: dict[str, Any] = {}
        self.usage: UsageMetadata | None = None
        self._arguments: dict[int | str | None, str] = {}

    def take(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk | None:
        """The chunk as the reader shall see it, or None if nothing is left of it."""
        self.info |= {key: value for key, value in (chunk.generation_info or {}).items() if value is not None}
        chunk.generation_info = None
        message = chunk.message
        if not isinstance(message, AIMessageChunk):
            return chunk if message.content else None
        self.usage = message.usage_metadata or self.usage
        message.usage_metadata = None
        for call in message.tool_call_chunks:
            index = call["index"]
            self._arguments[index] = self._arguments.get(index, "") + (call["args"] or "")
        return chunk if message.content or message.tool_call_chunks or message.additional_kwargs else None

    def check(self) -> None:
        """Raise unless the answer is whole. A half-written tool call must never be carried out."""
        reason = self.info.get("finish_reason")
        if reason is None or reason == "error":
            raise ModelFault("model_stream_broken", f"{self.subject} broke off before its answer was complete.")
        if self._arguments and (reason not in _COMPLETE or not all(map(_is_object, self._arguments.values()))):
            raise ModelFault("model_stream_broken", f"{self.subject} left a tool call half-written.")

    def last(self, **info: Any) -> ChatGenerationChunk:
        """The chunk that closes the answer and says what it was, with `info` on top."""
        return ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=self.usage, chunk_position="last"),
            generation_info={**self.info, **info},
        )


def _is_object(arguments: str) -> bool:
    """Whether the text is a JSON object as it stands; LangChain would mend a cut-off one and go on."""
    if not arguments.strip():
        return True
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False
