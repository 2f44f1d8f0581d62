"""The command line. What a command needs is imported when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threadline.domain.errors import Invalid, Missing, ThreadlineError

if TYPE_CHECKING:
    from threadline.app.check import Answers
    from threadline.app.client import Client
    from threadline.app.settings import Settings

app = typer.Typer(
    name="threadline",
    help="A self-hosted agent service: conversations, streamed, kept and replayable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str | None, typer.Option("--url", envvar="THREADLINE_URL", help="Address of the service. Default: as configured.")
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="THREADLINE_KEY", show_envvar=True, help="Key to show. Default: the one configured."),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of all state.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the service answers, as JSON.")]
Session = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.")]


def main() -> None:
    """Entry point: a failure that is understood ends in one line and exit code 1."""
    _speak_utf8()
    try:
        app()
    except ThreadlineError as error:
        print(f"threadline: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _global(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        from threadline import __version__

        print(f"threadline {__version__}")
        raise typer.Exit


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
    config: Annotated[Path | None, typer.Option(help="The langgraph.json that names the graphs to serve.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Allow a host others can reach without any key.")
    ] = None,
) -> None:
    """Start the service in the foreground. Flags win over the environment, which wins over .env."""
    settings = _settings(host=host, port=port, data_dir=data_dir, config=config, insecure=insecure)

    from threadline.app.server import serve

    serve(settings)


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    long: Annotated[bool, typer.Option("--long", help="Run the long tests as well.")] = False,
    system_packages: Annotated[
        bool,
        typer.Option(
            envvar="THREADLINE_TEST_SYSTEM_PACKAGES",
            help="Install the browser, fonts and Node.js the tests need, where apt-get and root are there.",
        ),
    ] = True,
) -> None:
    """Run the project's tests; anything else is handed to pytest."""
    from threadline.app import suite

    if system_packages:
        suite.install_system_packages()
    raise typer.Exit(suite.run(context.args, long=long))


@app.command()
def chat(
    session: Annotated[str | None, typer.Option(help="Go on with this session.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Talk to the agent. Ctrl-C stops an answer, Ctrl-D leaves; in a pipe, each line is a message."""
    from threadline.app.chat import reader, talk
    from threadline.app.transcript import Transcript

    interactive, live = sys.stdin.isatty(), sys.stdout.isatty()
    with _client(url, key) as client:
        transcript = Transcript(sys.stdout, live=live)
        try:
            info = client.get("/info")
        except Missing:  # its project keeps it back: http.disable_meta
            info = None
        if session is not None:
            known = client.get(f"/sessions/{_id(session)}")
            transcript.note(f"session {session}, {len(known['messages'])} messages so far")
        elif interactive:
            model = info.get("model", {"names": [], "provider": client.url})  # a stranger is told less
            names = ", ".join(filter(None, model["names"])) or model["provider"]
            name = f"Threadline {info.get('threadline_version', '')}".strip()
            transcript.note(f"{name} · {names} · Ctrl-C stops an answer, Ctrl-D leaves")
        all_well = talk(client, session_id=session, read=reader(interactive=interactive), transcript=transcript)
    if not all_well and not interactive:
        raise typer.Exit(1)


@app.command()
def sessions(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to show.")] = 20,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the sessions, the last used first."""
    from threadline.app.tables import rows

    with _client(url, key) as client:
        answer = client.get("/sessions", limit=limit)
    if not answer["items"]:
        print("No sessions yet.")
        return
    table = [("SESSION", "UPDATED", "TURNS", "STATUS", "LIVE", "TITLE")]
    for item in answer["items"]:
        live = "live" if item["live"] else "-"
        updated = item["updated_at"][:19].replace("T", " ")
        table.append((item["session_id"], updated, str(item["turns"]), item["status"], live, item["title"] or ""))
    for line in rows(table):
        print(line)
    if answer["next"]:
        print(f"More: --limit {min(500, 2 * limit)}")


@app.command()
def replay(
    session: Annotated[str | None, typer.Argument(metavar="SESSION", help="Id of the session.")] = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only this run of it.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Start after this one. Without it, recorded plays all.")
    ] = None,
    speed: Annotated[
        str | None, typer.Option(help="1 is the pace it had, 4 four times that; `max` shows all at once.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="`recorded` plays what happened; `rerun` executes it again on a new branch.")
    ] = "recorded",
    model: Annotated[str | None, typer.Option(help="Re-run: another model.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="Re-run: another temperature.")] = None,
    message: Annotated[str | None, typer.Option(help="Re-run: ask this in place of the turn's question.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VERSION", help="Re-run: another prompt; NAME=@FILE for a text.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="JSON", help="Re-run: write this to the state first; @FILE reads a file.")
    ] = None,
    as_node: Annotated[str | None, typer.Option(help="Re-run: the node that writes the state.")] = None,
    tools: Annotated[
        str | None, typer.Option(help="Re-run: answers to tool calls, `recorded` (the default) or `live`.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Re-run: answers of models, `recorded` (the default) or `live`.")
    ] = None,
    answer: Annotated[
        list[str] | None, typer.Option(metavar="NODE=TEXT", help="Re-run: what the model answers in a node.")
    ] = None,
    into: Annotated[
        str, typer.Option(help="Re-run: on a new `branch` of the session, or in a `session` of its own.")
    ] = "branch",
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Execute the exported sessions of this folder again. Exit code 1 if one differs."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: the report as JSON.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Play a session again, as it was or executed anew, with changes; --check holds exported ones to what they did."""
    if check is not None:
        raise typer.Exit(_check(check, models=models, tools=tools, as_json=as_json))
    if session is None:
        raise typer.BadParameter("say which session, or --check DIR", param_hint="SESSION")

    from threadline.app.changes import changes
    from threadline.app.chat import play
    from threadline.app.transcript import Transcript

    if mode not in ("recorded", "rerun"):
        raise typer.BadParameter("it is either recorded or rerun", param_hint="--mode")
    if mode == "rerun" and checkpoint is None and run is None:
        raise typer.BadParameter("rerun needs the checkpoint to execute from, or a --run", param_hint="--checkpoint")
    if mode == "rerun" and speed:
        raise typer.BadParameter("--speed goes with recorded", param_hint="--mode")
    if run and checkpoint:
        raise typer.BadParameter(
            "it is a place in the session, so it does not go with --run", param_hint="--checkpoint"
        )
    changed = changes(
        model=model,
        temperature=temperature,
        message=message,
        prompts=prompt or (),
        state=state,
        as_node=as_node,
        tools=tools,
        models=models,
        answers=answer or (),
    )
    if mode == "recorded" and (changed or into != "branch"):
        raise typer.BadParameter("a recording is played as it is; changes are for --mode rerun", param_hint="--mode")
    with _client(url, key) as client:
        transcript = Transcript(sys.stdout, live=sys.stdout.isatty(), replaying=mode == "recorded")
        if run is not None:
            client.get(f"/threads/{_id(session)}/runs/{_id(run)}")  # it must be one of this session
        if mode == "rerun" and run is not None:
            stream = client.rerun_run(run, changes=changed, into=into)
        elif mode == "rerun" and checkpoint is not None:
            stream = client.rerun(session, checkpoint_id=checkpoint, changes=changed, into=into)
        elif run is not None:
            stream = client.replay_run(run, speed=speed)
        else:
            stream = client.replay(session, checkpoint_id=checkpoint, speed=speed)
        play(client, stream, transcript)
    if mode == "rerun" and transcript.failed:
        raise typer.Exit(1)


@app.command()
def branches(
    session: Session,
    name: Annotated[tuple[str, str] | None, typer.Option(metavar="BRANCH NAME", help="Name a branch.")] = None,
    switch: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Go on from the end of this branch with the next message.")
    ] = None,
    promote: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Switch to it, and show the session as it is on it.")
    ] = None,
    delete: Annotated[str | None, typer.Option(metavar="BRANCH", help="Delete what only it stands on.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete it although steps of it are pinned.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show a session's branches; name, switch to, promote or delete one. A BRANCH is an id or a name."""
    from threadline.app.branches import act, lines, tree

    with _client(url, key) as client:
        act(client, session, name=name, switch=switch, promote=promote, delete=delete, force=force)
        found = tree(client, session)
    for line in [_json(found)] if as_json else lines(found):
        print(line)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A session, a session@branch, or a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    after: Annotated[int, typer.Option(min=0, help="Leave out so many steps.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many steps to show.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Compare two sessions, branches or runs step by step; say what differs first."""
    from threadline.app.compare import ask, lines

    with _client(url, key) as client:
        found = ask(client, a, b, after=after, limit=limit)
    for line in [_json(found)] if as_json else lines(found):
        print(line)


@app.command()
def export(
    session: Session,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it. Default: the output.")
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Write a session as one file for others, without secrets: threadline export SESSION > session.jsonl.gz"""
    from threadline.app.share import export

    with _client(url, key) as client:
        export(client, _id(session), output)


@app.command("import")
def import_session(
    file: Annotated[str, typer.Argument(help="A file that `export` has made, or - for the input.")],
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a new session of an exported file."""
    from threadline.app.share import bring

    with _client(url, key) as client:
        for line in bring(client, file):
            print(line)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    max_age: Annotated[
        str | None, typer.Option(help="Checkpoints older than this go: 30d, 12h. Default: as configured.")
    ] = None,
    max_checkpoints: Annotated[
        int | None, typer.Option(help="Checkpoints kept of each session. Default: as configured.")
    ] = None,
    max_log_age: Annotated[
        str | None, typer.Option(help="Recordings of runs older than this go: 30d, 12h. Default: as configured.")
    ] = None,
    thread: Annotated[str | None, typer.Option(metavar="ID", help="Only this session.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Remove old checkpoints and recordings, also while the service runs. The turns stay, and what is pinned."""
    import asyncio

    settings = _settings(
        history_max_age=max_age,
        history_max_checkpoints=max_checkpoints,
        history_max_log_age=max_log_age,
        data_dir=data_dir,
    )

    from threadline.app.prune import lines, prune
    from threadline.domain.records import Limits

    limits = Limits(settings.history_max_age, settings.history_max_checkpoints)
    log_age = settings.history_max_log_age
    if not limits and log_age is None:
        raise Invalid("No limit is set: say --max-age, --max-checkpoints or --max-log-age.")
    outcome = asyncio.run(prune(settings, limits, max_log_age=log_age, thread_id=thread, dry_run=dry_run))
    for line in lines(outcome, limits, dry_run=dry_run):
        print(line)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Copy all that is kept for good into one file, also while the service runs."""
    from threadline.app.backup import back_up
    from threadline.app.tables import human

    made = back_up(_settings(data_dir=data_dir), file, replace=force)
    sizes = ", ".join(f"{name} {human(size)}" for name, size in made.sizes.items())
    print(f"Backed up to {file}: {sizes}.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` has made.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the data there is; it is kept aside.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Go back to a backup. The service must not run."""
    from threadline.app.backup import restore
    from threadline.app.transcript import clean

    restored = restore(_settings(data_dir=data_dir), file, replace=force)
    print(f"Restored the backup of {clean(restored.backup.created_at)}, made by {clean(restored.backup.version)}.")
    if restored.aside is not None:
        print(f"What was there before is in {restored.aside}.")


@app.command()
def doctor() -> None:
    """Say what is configured, what is reachable and what is broken. Exit code 1 if something is."""
    import asyncio

    settings = _settings()

    from threadline.app.doctor import examine, lines
    from threadline.app.logs import configure

    configure(level="error", format="console")
    findings = asyncio.run(examine(settings))
    for line in lines(findings):
        print(line)
    broken = [finding.subject for finding in findings if finding.verdict == "broken"]
    if broken:
        print(f"\nBroken: {', '.join(broken)}.")
        raise typer.Exit(1)
    print("\nNothing is broken.")


def _answers(models: str | None, tools: str | None) -> Answers:
    from threadline.app.check import Answers

    for name, given in (("--models", models), ("--tools", tools)):
        if given not in (None, "recorded", "live"):
            raise typer.BadParameter("it is either recorded or live", param_hint=name)
    return Answers(models="live" if models == "live" else "recorded", tools="live" if tools == "live" else "recorded")


def _check(folder: Path, *, models: str | None, tools: str | None, as_json: bool) -> int:
    """The exit code of `replay --check`."""
    import json

    settings = _settings()

    from threadline.app import check
    from threadline.app.logs import configure

    configure(level="error", format="console")
    verdicts = check.checked(settings, folder, _answers(models, tools))
    if as_json:
        print(json.dumps(check.as_json(verdicts), ensure_ascii=False, indent=1))
    else:
        for line in check.report(verdicts):
            print(line)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _client(url: str | None, key: str | None) -> Client:
    """A client of the service asked for, or of the one configured here, whose keys are then at hand."""
    from threadline.app.client import Client, service_url

    if url is not None:
        return Client(url, key)
    settings = _settings()
    if key is None and settings.api_keys:
        key = settings.api_keys[0].get_secret_value()
    return Client(service_url(settings.host, settings.port), key)


def _settings(**flags: Any) -> Settings:
    """The settings, flags first. Raises Invalid naming what is wrong, but not the value: it may be a secret."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from threadline.app.settings import Settings

    try:
        # An empty value counts as unset, as in the environment: `--data-dir "$UNSET"` is not the current folder.
        given = {name: value for name, value in flags.items() if value is not None and value != Path()}
        return Settings(**given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = [f"{_setting_name(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in found]
        raise Invalid("; ".join(reasons)) from error
    except (SettingsError, UnicodeDecodeError, OSError) as error:
        raise Invalid("The settings cannot be read. Is .env a text file in UTF-8?") from error


def _setting_name(place: tuple[int | str, ...]) -> str:
    name = str(place[0]) if place else "settings"
    return name if name.isupper() else f"THREADLINE_{name.upper()}"


def _id(session: str) -> str:
    from urllib.parse import quote

    return quote(session, safe="")


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)


def _speak_utf8() -> None:
    """Korean in and out under any locale: what cannot be shown is replaced, never a crash."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
