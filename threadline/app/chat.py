"""The chat on a terminal: reads messages, shows what the agent does, answers what it asks."""

from __future__ import annotations

import contextlib
import json
import locale
import os
import sys
from collections.abc import Callable
from typing import Any

from threadline.app.client import Client, Stream
from threadline.app.transcript import Transcript
from threadline.domain.errors import ThreadlineError

Read = Callable[[str], str | None]
"""Gives the next line after a prompt, None at the end."""


def talk(client: Client, *, session_id: str | None, read: Read, transcript: Transcript) -> bool:
    """Talk until nothing more is said; whether all of it went well."""
    all_well = True
    transcript.session_id = session_id
    while (message := read("you › ")) is not None:
        if message.strip():
            all_well &= _turn(client, message, read=read, transcript=transcript)
    return all_well


def _turn(client: Client, message: str, *, read: Read, transcript: Transcript) -> bool:
    """A message, and all the answers the agent needs before it replies; whether it replied."""
    try:
        play(client, client.say(message, session_id=transcript.session_id), transcript)
        while transcript.interrupt is not None and transcript.session_id is not None:
            answer = read("answer › ")
            if answer is None:
                break
            asked = transcript.interrupt["id"]
            play(client, client.resume(asked, value_of(answer), session_id=transcript.session_id), transcript)
    except ThreadlineError as error:
        transcript.close()
        print(f"✗ {error.message}", file=sys.stderr, flush=True)
        return False
    return not transcript.failed


def play(client: Client, stream: Stream, transcript: Transcript) -> None:
    """Show a stream to its end. Ctrl-C stops the run, and goes on showing; a second one leaves."""
    transcript.begin()
    try:
        try:
            _show(stream, transcript)
        except KeyboardInterrupt:
            if stream.run_id is None:
                raise
            transcript.note("  Stopping… (Ctrl-C again leaves)")
            client.cancel(stream.run_id)
            _show(stream, transcript)
    finally:
        transcript.close()


def _show(stream: Stream, transcript: Transcript) -> None:
    for frame in stream:
        transcript.show(frame)


def value_of(answer: str) -> Any:
    """What an answer to the agent means: JSON if it is JSON, else its text."""
    try:
        return json.loads(answer)
    except ValueError:
        return answer


def reader(*, interactive: bool) -> Read:
    """Lines typed at a prompt, or lines of a pipe, which are shown as if they had been typed."""
    if not interactive:
        return _piped
    if _reads_utf8():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() its editing keys and history
    return _typed


def _reads_utf8() -> bool:
    """Whether the line editor will take Korean. It goes by the locale of the environment, so see that one fits."""
    for name in ("", "C.UTF-8", "en_US.UTF-8"):
        try:
            locale.setlocale(locale.LC_CTYPE, name)
        except locale.Error:
            continue
        if locale.getlocale()[1] == "UTF-8":
            if name:
                os.environ["LC_ALL"] = name
            return True
    return False


def _typed(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        print()
        return None


def _piped(prompt: str) -> str | None:
    line = sys.stdin.readline()
    if not line:
        return None
    line = line.rstrip("\r\n")
    if line.strip():
        print(f"{prompt}{line}", flush=True)
    return line
