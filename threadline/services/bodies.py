"""What bodies that ask for runs, threads and assistants are made of. How deep they may go and what is no JSON, the
routes see to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel


class CheckpointBody(BaseModel):
    """A checkpoint by reference. The thread it names is passed over: the one of the path counts."""

    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, str] | None = None


def _writable(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | list):
        raise ValueError("must be an object, a list or null")
    return value


Json = Any
Document = dict[str, Any]
Values = Annotated[Any, AfterValidator(_writable)]
"""What may be written to a state."""
