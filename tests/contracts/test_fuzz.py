"""The proof by search: random lives of many threads equal the reference, in every state that was ever stored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine

from tests.contracts.conftest import Clock, RedisServer
from tests.contracts.lives import STEP_NAMES, Lives, Tally, ids

LIVES = 40
STEPS = 24
LONG = 10
"""How many times as many lives the long form has."""


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> Iterator[Tally]:
    monkeypatch.setattr("langgraph.pregel._checkpoint.uuid6", lambda **_: next(ids.get()))
    monkeypatch.setattr("langgraph.pregel._messages.uuid4", lambda: next(ids.get()))
    counts = Tally()
    yield counts
    told = f"{counts.states} states and {counts.listed} listed checkpoints of {counts.lives} lives compared"
    tell(f"fuzz: {told}, {'0 mismatches' if counts.first is None else f'different after {counts.first}'}")


def live_on(server: RedisServer, tally: Tally, *, lives: int, number: int | None = None) -> None:
    """Some lives, the same each time unless there is a number. One that fails is made small and printed as a program.

    That it was not over before it began is checked as well: everything was done, and Redis did answer.
    """
    chosen = settings(
        max_examples=lives,
        stateful_step_count=STEPS,
        derandomize=number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )

    def machine() -> Lives:
        return Lives(server, Clock(), tally)

    run_machine(machine if number is None else seed(number)(machine), settings=chosen)  # type: ignore[arg-type]
    assert min(tally.done[name] for name in STEP_NAMES) > 0, tally
    assert {"Fault", "Conflict"} < tally.raised.keys(), tally
    assert tally.hits > lives


@pytest.mark.timeout(900)  # of which most would go into making a failure small
def test_random_lives_equal_the_reference(own_redis: RedisServer, tally: Tally) -> None:
    live_on(own_redis, tally, lives=LIVES)
    assert tally.states >= 2000


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_lives_equal_the_reference(
    own_redis: RedisServer, tally: Tally, tell: Callable[[str], None], pytestconfig: pytest.Config
) -> None:
    """Others each time; to have the same ones, give pytest the printed number: --hypothesis-seed=NUMBER."""
    given = pytestconfig.getoption("hypothesis_seed", None)
    number = int(given) if given else random.SystemRandom().randrange(2**32)
    tell(f"fuzz: --hypothesis-seed={number}")
    live_on(own_redis, tally, lives=LIVES * LONG, number=number)
