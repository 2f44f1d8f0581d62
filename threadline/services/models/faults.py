"""From whatever a model server or its client throws to a `ModelFault`. Reads base classes and codes, never quotes text.

A fault's message is shown to strangers, and upstream texts hold keys, addresses and pages of HTML.
"""

from __future__ import annotations

import re
from typing import Any

import httpx2
import openai
from langchain_core.exceptions import ContextOverflowError

from threadline.domain.errors import ModelFault

THROWN = (openai.OpenAIError, httpx2.HTTPError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What a call can throw. The last four: a server whose JSON is broken or has another shape than promised."""

_BY_STATUS = {
    401: ("model_refused", "refused the key (HTTP 401)"),
    402: ("model_refused", "asks for payment: no credit is left (HTTP 402)"),
    403: ("model_refused", "may not be used with this key (HTTP 403)"),
    404: ("model_refused", "is not known to the server (HTTP 404)"),
    408: ("model_timeout", "took too long (HTTP 408)"),
    429: ("model_overloaded", "is asked too often (HTTP 429)"),
    502: ("model_unreachable", "cannot be reached by its gateway (HTTP 502)"),
    503: ("model_overloaded", "is overloaded (HTTP 503)"),
    504: ("model_timeout", "took too long (HTTP 504)"),
    529: ("model_overloaded", "is overloaded (HTTP 529)"),
}
_OVERFLOW = re.compile(r"exceed_context_size|context[ _]?(length|size|window)|prompt is too long", re.IGNORECASE)


def fault_of(error: Exception, *, subject: str, begun: bool = False) -> ModelFault:
    """The fault behind `error`. `subject` is who failed; `begun` means part of the answer has reached the reader."""
    if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError):
        return ModelFault("model_timeout", f"{subject} stopped answering.")
    if begun:
        return ModelFault("model_stream_broken", f"{subject} broke off in mid-answer.")
    if _overflows(error):
        return ModelFault("context_overflow", f"The conversation is too long for {subject[0].lower()}{subject[1:]}.")
    if status := _status(error):
        kind, words = _BY_STATUS.get(status) or _by_class(status)
        return ModelFault(kind, f"{subject} {words}.")
    if isinstance(error, openai.APIConnectionError | httpx2.TransportError | OSError):
        return ModelFault("model_unreachable", f"{subject} cannot be reached.")
    return ModelFault("model_stream_broken", f"{subject} sent something that is no answer.")


def _by_class(status: int) -> tuple[str, str]:
    if status >= 500:
        return "model_unreachable", f"is out of order (HTTP {status})"
    return "model_invalid", f"did not accept the request (HTTP {status})"


def _overflows(error: Exception) -> bool:
    """Whether the conversation was too long, in the words of OpenAI, llama.cpp, vLLM or OpenRouter."""
    if isinstance(error, ContextOverflowError):
        return True
    if not isinstance(error, openai.APIError) or _status(error) not in (None, 400, 413, 422):
        return False
    return _OVERFLOW.search(f"{error.message} {error.body}") is not None


def _status(error: Exception) -> int | None:
    """The HTTP status, or the one that an error event inside a 200 stream names."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code
    body: Any = error.body if isinstance(error, openai.APIError) else None
    if not isinstance(body, dict):
        return None
    code = body.get("code")
    if isinstance(code, str) and code.isdecimal():
        code = int(code)
    if isinstance(code, int):
        return code if 400 <= code <= 599 else None
    return 429 if "rate_limit" in f"{code} {body.get('type')}" else None
