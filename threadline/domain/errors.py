"""The one tree of error kinds. Only `api.problems` knows which HTTP status belongs to which.

ThreadlineError
├── Invalid          what was asked makes no sense as it is
│   └── Rejected     it is well formed, but cannot be done with what it names
├── Denied           nobody known asks
├── Forbidden        the caller is known, and may not
├── Missing          there is no such thing, or it is not the caller's
├── Conflict         the thing's present state does not allow it
├── Limited          too much or too often
└── Unavailable      something the service depends on is away
    └── ModelFault   the model server failed; `kind` says how

A message is written for strangers: it never holds a key, a path or the text of another exception.
"""

from __future__ import annotations

from typing import ClassVar


class ThreadlineError(Exception):
    """Base of every error Threadline raises on purpose."""

    kind: str = "internal"
    retryable: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(ThreadlineError):
    kind = "invalid"


class Rejected(Invalid):
    kind = "rejected"


class Denied(ThreadlineError):
    kind = "denied"


class Forbidden(ThreadlineError):
    kind = "forbidden"


class Missing(ThreadlineError):
    kind = "missing"


class Conflict(ThreadlineError):
    kind = "conflict"


class Limited(ThreadlineError):
    kind = "limited"
    retryable = True


class Unavailable(ThreadlineError):
    kind = "unavailable"
    retryable = True


class ModelFault(Unavailable):
    """A model call failed. `kind` is one of `KINDS`; it decides `retryable`."""

    KINDS: ClassVar[dict[str, bool]] = {
        "model_unreachable": True,
        "model_overloaded": True,
        "model_timeout": True,
        "model_stream_broken": True,
        "model_refused": False,  # bad key, no credit, forbidden, unknown model
        "model_invalid": False,  # the server says our request makes no sense
        "context_overflow": False,
    }

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = self.KINDS[kind]
