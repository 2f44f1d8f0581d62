"""The command line. What a command needs is imported when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threadline.domain.errors import Invalid, Missing, ThreadlineError

if TYPE_CHECKING:
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
        elif interactive and info:
            model = info["model"]
            names = ", ".join(filter(None, model["names"])) or model["provider"]
            transcript.note(
                f"Threadline {info['threadline_version']} · {names} · Ctrl-C stops an answer, Ctrl-D leaves"
            )
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
    session: Session,
    checkpoint: Annotated[
        str | None, typer.Option(help="Start after this one. Without it, recorded plays all.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="`recorded` plays what happened; `rerun` executes it again on a new branch.")
    ] = "recorded",
    url: Url = None,
    key: Key = None,
) -> None:
    """Play a session again."""
    from threadline.app.chat import play
    from threadline.app.transcript import Transcript

    if mode not in ("recorded", "rerun"):
        raise typer.BadParameter("it is either recorded or rerun", param_hint="--mode")
    if mode == "rerun" and checkpoint is None:
        raise typer.BadParameter("rerun needs the checkpoint to execute from", param_hint="--checkpoint")
    with _client(url, key) as client:
        transcript = Transcript(sys.stdout, live=sys.stdout.isatty())
        play(client, client.replay(session, checkpoint_id=checkpoint, mode=mode), transcript)
    if mode == "rerun" and transcript.failed:
        raise typer.Exit(1)


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    max_age: Annotated[
        str | None, typer.Option(help="Checkpoints older than this go: 30d, 12h. Default: as configured.")
    ] = None,
    max_checkpoints: Annotated[
        int | None, typer.Option(help="Checkpoints kept of each session. Default: as configured.")
    ] = None,
    thread: Annotated[str | None, typer.Option(metavar="ID", help="Only this session.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Remove old checkpoints, also while the service runs. Pinned ones, the newest, and the turns stay."""
    import asyncio

    settings = _settings(history_max_age=max_age, history_max_checkpoints=max_checkpoints, data_dir=data_dir)

    from threadline.app.prune import lines, prune
    from threadline.domain.records import Limits

    limits = Limits(settings.history_max_age, settings.history_max_checkpoints)
    if not limits:
        raise Invalid("No limit is set: say --max-age or --max-checkpoints.")
    outcome = asyncio.run(prune(settings, limits, thread_id=thread, dry_run=dry_run))
    for line in lines(outcome, dry_run=dry_run):
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


def _speak_utf8() -> None:
    """Korean in and out under any locale: what cannot be shown is replaced, never a crash."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
