"""The meter of a run: what its model calls used and cost, whoever made them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from threadline.domain.errors import ModelFault
from threadline.services.models.prices import price
from threadline.services.recording import MARK

_NOT_BILLED = ("model_unreachable", "model_overloaded", "model_refused", "model_invalid", "context_overflow")


@dataclass(slots=True)
class _Sum:
    """None is "unknown" and stays so, whatever is added to it."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    total_tokens: int | None = 0
    model_calls: int = 0
    cost: float | None = 0.0

    def add(self, usage: UsageMetadata | None, cost: float | None) -> None:
        self.model_calls += 1
        self.input_tokens = _plus(self.input_tokens, usage["input_tokens"] if usage else None)
        self.output_tokens = _plus(self.output_tokens, usage["output_tokens"] if usage else None)
        self.total_tokens = _plus(self.total_tokens, usage["total_tokens"] if usage else None)
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    def usage(self) -> dict[str, int | None]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.total_tokens,
            "model_calls": self.model_calls,
        }


class UsageMeter(BaseCallbackHandler):
    """Give one to a run as a callback; read it at any time, from any thread.

    A call that broke off counts, with unknown tokens and cost: the provider may bill it. One that was refused does not,
    and one that a recording answered is counted apart.
    """

    run_inline = True
    ignore_chain = True
    ignore_retriever = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = _Sum()
        self._models: dict[str, _Sum] = {}
        self._model: str | None = None
        self.recorded_calls = 0
        """How many calls a recording answered."""

    def usage(self) -> dict[str, int | None]:
        """`{input_tokens, output_tokens, total_tokens, model_calls}`; a number of tokens is None if it is unknown."""
        with self._lock:
            return self._sum.usage()

    @property
    def cost(self) -> float | None:
        """US dollars of all calls, or None if that of any call is unknown."""
        with self._lock:
            return self._sum.cost

    @property
    def model(self) -> str | None:
        """The model that answered last."""
        with self._lock:
            return self._model

    @property
    def models(self) -> dict[str, dict[str, float | None]]:
        """`{model: {input_tokens, output_tokens, total_tokens, model_calls, cost}}`, in order of first use."""
        with self._lock:
            return {name: {**spent.usage(), "cost": spent.cost} for name, spent in self._models.items()}

    def lost(self) -> None:
        """Calls were made that nobody counted, as by an attempt that a crash cut off: the sums are unknown."""
        with self._lock:
            self._sum.add(None, None)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self._record(response)

    def on_llm_error(self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        if isinstance(error, ModelFault) and error.kind in _NOT_BILLED:
            return
        self._record(response)

    def _record(self, response: LLMResult | None) -> None:
        message = message_of(response.generations if response else ())
        described = message.response_metadata if message else {}
        usage = message.usage_metadata if message else None
        name = described.get("model_name")
        cost = described["cost"] if "cost" in described else _listed_price(usage, described)
        with self._lock:
            if described.get(MARK):
                self.recorded_calls += 1
                self._model = name or self._model
                return
            self._sum.add(usage, cost)
            if name:
                self._model = name
                self._models.setdefault(name, _Sum()).add(usage, cost)


def _listed_price(usage: UsageMetadata | None, described: dict[str, Any]) -> float | None:
    """For models that are not ours and so did not say what they cost."""
    return price(usage, described.get("model_name") or "", provider=described.get("model_provider"))


def message_of(generations: Sequence[Sequence[Generation | Any]]) -> AIMessage | None:
    """The message of an answer, if it is one of a chat model."""
    for generation in generations[0] if generations else ():
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            return generation.message
    return None


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right
