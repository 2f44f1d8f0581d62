"""Aligns two sequences: the same as far as they go, then by a longest common subsequence (Myers, O(ND))."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Pair = tuple[int | None, int | None]
"""Indexes of what belongs together; None where one side has nothing there."""

BOUND = 500
"""Insertions and removals that are looked for; where there are more, what is left is taken as it stands."""


def align(a: Sequence[Hashable], b: Sequence[Hashable], *, bound: int = BOUND) -> list[Pair]:
    """Every index of both once, in order. Equal items only are paired. At most `bound` squared steps of work."""
    start = 0
    while start < len(a) and start < len(b) and a[start] == b[start]:
        start += 1
    end = 0
    while end < len(a) - start and end < len(b) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    pairs: list[Pair] = [(index, index) for index in range(start)]
    between = _middle(a[start : len(a) - end], b[start : len(b) - end], bound)
    pairs += [(None if i is None else i + start, None if j is None else j + start) for i, j in between]
    pairs += [(len(a) - back, len(b) - back) for back in range(end, 0, -1)]
    return pairs


def _middle(a: Sequence[Hashable], b: Sequence[Hashable], bound: int) -> list[Pair]:
    if not a or not b:
        return [*((i, None) for i in range(len(a))), *((None, j) for j in range(len(b)))]
    furthest = {1: 0}
    trace: list[dict[int, int]] = []
    for distance in range(min(len(a) + len(b), bound) + 1):
        trace.append(dict(furthest) if distance else {1: 0})
        for diagonal in range(-distance, distance + 1, 2):
            down = diagonal == -distance or (
                diagonal != distance and furthest.get(diagonal - 1, -1) < furthest.get(diagonal + 1, -1)
            )
            i = furthest.get(diagonal + 1, 0) if down else furthest.get(diagonal - 1, 0) + 1
            j = i - diagonal
            while i < len(a) and j < len(b) and a[i] == b[j]:
                i, j = i + 1, j + 1
            furthest[diagonal] = i
            if i >= len(a) and j >= len(b):
                return _walked(trace, len(a), len(b))
    return _as_they_stand(a, b)


def _walked(trace: Sequence[dict[int, int]], i: int, j: int) -> list[Pair]:
    """The way back through what each distance reached."""
    pairs: list[Pair] = []
    for distance in range(len(trace) - 1, -1, -1):
        before, diagonal = trace[distance], i - j
        down = diagonal == -distance or (
            diagonal != distance and before.get(diagonal - 1, -1) < before.get(diagonal + 1, -1)
        )
        edited = (before.get(diagonal + 1, 0) if down else before.get(diagonal - 1, 0) + 1) if distance else 0
        while i > edited:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        if distance and down:
            j -= 1
            pairs.append((None, j))
        elif distance:
            i -= 1
            pairs.append((i, None))
    return pairs[::-1]


def _as_they_stand(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Pair]:
    """Position by position: two that differ so much have little in common to look for."""
    pairs: list[Pair] = []
    for index in range(max(len(a), len(b))):
        if index < len(a) and index < len(b) and a[index] == b[index]:
            pairs.append((index, index))
            continue
        if index < len(a):
            pairs.append((index, None))
        if index < len(b):
            pairs.append((None, index))
    return pairs
