"""The differences between `langgraph dev` and us that are meant, each with its reason.

The guide tells them to people: docs/server.md, under Differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.compat.comparison import ABSENT, Difference


@dataclass(frozen=True)
class Accepted:
    """A difference that is meant: those whose place matches `at` whole, and of which `holds` is true."""

    reason: str
    at: str
    holds: Callable[[Difference], bool] = lambda difference: True

    def covers(self, difference: Difference) -> bool:
        return re.fullmatch(self.at, difference.at) is not None and self.holds(difference)


def theirs_alone(difference: Difference) -> bool:
    return bool(difference.ours == ABSENT)


def ours_alone(difference: Difference) -> bool:
    return bool(difference.theirs == ABSENT)


def streamed_ids(difference: Difference) -> bool:
    return (difference.ours, difference.theirs) in [("lc_run--<id>", "lc_run--<id>-0"), ("<id>", None)]


def is_text(difference: Difference) -> bool:
    return isinstance(difference.ours, str) and isinstance(difference.theirs, str)


def blocks(difference: Difference) -> bool:
    """A message's content as text there, as blocks here."""
    return isinstance(difference.theirs, list) and isinstance(difference.ours, str)


LEAKS = (
    "langgraph_(api_url|api_version|version|host|plan|request_id|auth_user_id|auth_user|auth_permissions)"
    "|user_id|__after_seconds__|__request_start_time_ms__|__pregel_node_finished"
)
SUBGRAPH = "checkpoint_map|checkpoint_ns|langgraph_checkpoint_ns|langgraph_(node|path|step|triggers)(/.*)?"
CHECKPOINT = "config|parent_config|checkpoint|parent_checkpoint"
ACCEPTED = (
    # What is kept to ourselves.
    Accepted("nothing tells the caller, the request, the server's address or versions", f".*/({LEAKS})", theirs_alone),
    Accepted(
        "the text of an exception is not told",
        ".*/(error|message)",
        lambda d: (
            is_text(d) and re.fullmatch(r"The node \w+ failed\.|The graph took too many steps\.", d.ours) is not None
        ),
    ),
    Accepted("a task's error is its kind", r"stream_(tasks|debug)_boom/.*/error", lambda d: d.ours == "ValueError"),
    Accepted(
        "a cancelled run is no error of its thread", ".*/thread/body/error", lambda d: "UserInterrupt" in str(d.theirs)
    ),
    # Runs and states.
    Accepted(
        "steps are saved before the next begins", ".*/durability", lambda d: (d.ours, d.theirs) == ("sync", "async")
    ),
    Accepted(
        "a run's config holds what was asked for", ".*/kwargs/config/(metadata|configurable/[a-z]+_id)", theirs_alone
    ),
    Accepted("there is no tracing to LangSmith", ".*/langsmith_session_name", theirs_alone),
    Accepted("an empty config stays empty", ".*/config/configurable", lambda d: theirs_alone(d) and d.theirs == {}),
    Accepted(
        "models are always streamed, and messages have the ids of streamed ones",
        ".*/messages(/[0-9]+)+/id",
        streamed_ids,
    ),
    Accepted(
        "a checkpoint of a stream is told by thread, namespace and id",
        rf".*/(checkpoints|debug)(\|[^/]*)?/.*/?({CHECKPOINT})/(configurable/)?(assistant_id|graph_id|run_id|checkpoint_map)",
        theirs_alone,
    ),
    Accepted(
        "a subgraph's state does not hold the config of its call",
        f"subgraph_states/.*/metadata/({SUBGRAPH})",
        theirs_alone,
    ),
    Accepted("a state's metadata does not hold the checkpoint it forks", ".*/metadata/checkpoint_id", theirs_alone),
    Accepted(
        "a state names the whole of its checkpoint", "states/at.*/checkpoint/checkpoint_ns", lambda d: d.ours == ""
    ),
    Accepted("a thread shows what it holds while it is busy", "reject/busy/body/(values|error|interrupts)"),
    Accepted(
        "the thread shows its own values, not its subgraph's", "several_modes_ask_below/thread/body/values/messages"
    ),
    Accepted(
        "a copy stands where the first thread stands",
        "threads/copy/body/(values|error|interrupts|status|state_updated_at)",
    ),
    Accepted(
        "a copy's states do not hold the thread's metadata", "threads/state of the copy/body/metadata/.*", theirs_alone
    ),
    Accepted("deleting a run leaves the state alone", "background/state stays/body/.*"),
    Accepted("runs without a thread name their graph too", "stateless/.*/metadata/graph_id", ours_alone),
    # Faults of langgraph dev.
    Accepted("a bare checkpoint as before is taken", "states/before a checkpoint/.*", lambda d: True),
    Accepted("pages may reach into private networks", "probes/preflight into a private network/(status|body)"),
    Accepted(
        "the total is the total",
        "assistants/page/headers/x-pagination-total",
        lambda d: (d.ours, d.theirs) == ("3", "2"),
    ),
    Accepted(
        "a context leaves the rest of the config alone",
        "assistants/(patch context|versions)/.*/recursion_limit",
        ours_alone,
    ),
    Accepted("going back restores the context too", "assistants/(latest|search)/.*/context/[ab]"),
    Accepted(
        "items of a store come newest first, as in its databases", r"store/(search|page)/body/items/\d+/(key|value/.)"
    ),
    # Words and extras.
    Accepted("a cron tells whose it is", "crons/.*/user_id", lambda d: (d.ours, d.theirs) == ("local", "")),
    Accepted("a bad request is told in pydantic's words", ".*/(no|bad|unknown)[^/]*/body/detail", is_text),
    Accepted("an unknown thread is 404 in the same words", "threads/(patch|copy) unknown/(status|body/detail)"),
    Accepted(
        "what cannot be cancelled or deleted is told in the same words", "(background|cancelling)/.*again.*/body/detail"
    ),
    Accepted(
        "what cannot be cancelled or deleted is told in the same words", "background/cancel when over/body/detail"
    ),
    Accepted("text is told to be text", "store/dotted/headers/content-type", ours_alone),
    Accepted("an unknown action is 422", "cancelling/bad action/status", lambda d: (d.ours, d.theirs) == (422, 404)),
    Accepted("a known path is 405", "probes/wrong method/(status|body/detail)"),
    Accepted(
        "problems outside the API are RFC 9457", "(probes|refused)/(wrong method|no such path)/body/.*", ours_alone
    ),
    Accepted(
        "problems outside the API are RFC 9457", "(probes|refused)/(wrong method|no such path)/headers/content-type"
    ),
    Accepted("info tells more of this service and less of a platform", "probes/info/body/.*"),
    Accepted("origins are named one by one", ".*/access-control-allow-origin", lambda d: d.theirs == "*"),
    Accepted("private networks are granted where that is asked", "probes/preflight/headers/access.*", theirs_alone),
    # Streams.
    Accepted("ids of events are unique", "thread_stream/stream/lines/.*"),
    Accepted(
        "a stream begins with its run's id, whatever it shows",
        "(resumable/one mode|joined_live_(one|another)_mode/live)/frames/metadata",
        ours_alone,
    ),
    Accepted(
        "a reader may join with updates where nobody had asked for them",
        "joined_live_another_mode/live/frames/updates",
        ours_alone,
    ),
    Accepted(
        "every run can be read again by whoever says from where",
        "joined_live_from_start/(live/lines|over/frames)/[a-z]+",
        lambda d: ours_alone(d) or (d.ours[1], d.theirs[1]) == ("<event>", None),
    ),
    Accepted(
        "a run's metadata names its own graph, whatever ran on the thread before",
        "joined_live_subgraphs/.*/metadata/graph_id",
        lambda d: (d.ours, d.theirs) == ("parent", "agent"),
    ),
    Accepted(
        "an event shows a tool's result as it was then",
        "(stream|subgraphs)_events.*/events/data/(output|chunk)(/messages/[0-9]+)?/id",
        lambda d: d.ours is None,
    ),
    Accepted("a subgraph has started before it has values", "protocol_parent_hi/[a-z]+/frames/(lifecycle|values)"),
    Accepted(
        "values are told also where a run stops and where it goes on",
        "protocol_agent_approve/.*/(frames/values|values/params/data/messages)",
    ),
    Accepted("an empty field of a message is left out", "protocol_.*/messages/[0-9]+/artifact", theirs_alone),
    Accepted("a question is told under both names there are", "protocol_.*/input.requested/.*/value(/.*)?", ours_alone),
    Accepted("events have numbers of their own", "protocol_.*/(event_id|seq)"),
    Accepted(
        "channels that langgraph dev leaves empty",
        "protocol_.*/frames/(updates|custom|tasks|checkpoints|tools)",
        ours_alone,
    ),
    Accepted("messages keep the shape the model gave them", "protocol_.*/content", blocks),
    Accepted(
        "messages keep the shape the model gave them", "protocol_.*/response_metadata(/output_version)?", theirs_alone
    ),
)


def reason_of(difference: Difference) -> str | None:
    return next((accepted.reason for accepted in ACCEPTED if accepted.covers(difference)), None)
