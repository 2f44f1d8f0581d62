"""The pytest plugin: `threadline_session` holds a test to an exported session."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any

import pytest

Check = Callable[..., None]


@pytest.fixture
def threadline_session() -> Check:
    """Called with an exported file, and settings by their names where they differ from the environment's: executes it
    again and fails where it does otherwise."""

    def check(file: str | PathLike[str], **settings: Any) -> None:
        __tracebackhide__ = True
        from threadline.app.check import checked, told
        from threadline.app.settings import Settings

        # In a thread of its own, since the test may have an event loop.
        with ThreadPoolExecutor(1) as thread:
            [verdict] = thread.submit(checked, Settings(**settings), Path(file)).result()
        if not verdict.passed:
            pytest.fail("\n".join((f"{verdict.path.name} does otherwise:", *told(verdict))), pytrace=False)

    return check
