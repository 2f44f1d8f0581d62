"""Reads langgraph.json and imports what it names: somebody's project, ours among them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import orjson
import structlog
from dotenv import dotenv_values
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph_sdk.auth import Auth
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from threadline.domain.errors import Invalid
from threadline.storage.allowlist import Listed, names_of

log = structlog.get_logger(__name__)

DEFAULT = "agent"
CENTURY = 100 * 366 * 24 * 60
"""In minutes."""
SHARED_NAMES = ("api", "graph", "tools")
"""Our top-level packages whose names a project is likely to use as well."""
LOADED = "threadline_project_"
"""What the names of modules begin with that were loaded from files outside any package."""


class _Part(BaseModel):
    """A part of langgraph.json. What it has beyond these fields is accepted and named as not used."""

    model_config = ConfigDict(extra="allow", frozen=True)


class StoreTtl(_Part):
    """Minutes. `refresh_on_read`: reading an item renews its time."""

    refresh_on_read: bool = True
    default_ttl: float | None = Field(None, ge=0, le=CENTURY)
    sweep_interval_minutes: float | None = Field(None, gt=0, le=CENTURY)


class StoreIndex(_Part):
    embed: str
    dims: int = Field(ge=1)
    fields: list[str] | None = None


class StorePart(_Part):
    path: str | None = None
    index: StoreIndex | None = None
    ttl: StoreTtl | None = None


class ThreadTtl(_Part):
    """Minutes after its last use until a thread is deleted, or cut down to its newest state."""

    strategy: Literal["delete", "keep_latest"] = "delete"
    default_ttl: float | None = Field(None, gt=0, le=CENTURY)


class CheckpointerPart(_Part):
    ttl: ThreadTtl | None = None


class AuthPart(_Part):
    """`disable_studio_auth` is always so: no header of Studio's is trusted."""

    path: str
    disable_studio_auth: bool = True


class CorsPart(_Part):
    allow_origins: list[str] = []
    allow_methods: list[str] = ["*"]
    allow_headers: list[str] = ["*"]
    allow_credentials: bool = False
    allow_origin_regex: str | None = None
    expose_headers: list[str] = []
    max_age: int = Field(600, ge=0)


class HeadersPart(_Part):
    """Names of headers, in which a `*` stands for any characters. Both spellings of the keys are about."""

    includes: list[str] | None = Field(None, validation_alias=AliasChoices("includes", "include"))
    excludes: list[str] | None = Field(None, validation_alias=AliasChoices("excludes", "exclude"))


class HttpPart(_Part):
    app: str | None = None
    cors: CorsPart | None = None
    configurable_headers: HeadersPart | None = None
    mount_prefix: str | None = Field(None, pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    disable_assistants: bool = False
    disable_threads: bool = False
    disable_runs: bool = False
    disable_store: bool = False
    disable_meta: bool = False
    disable_webhooks: bool = False

    @property
    def disabled(self) -> frozenset[str]:
        """The resources of the LangGraph Server API that are not served; `meta` is what tells of the service."""
        named = ("assistants", "threads", "runs", "store", "meta")
        return frozenset(name for name in named if getattr(self, f"disable_{name}"))


class WebhookUrlPart(_Part):
    """`disable_loopback` is always so: what this machine may be asked stands in THREADLINE_WEBHOOK_HOSTS."""

    require_https: bool = True
    allowed_domains: list[Annotated[str, Field(pattern=r"^(\*\.)?[^*\s/:]+$")]] = []
    allowed_ports: list[Annotated[int, Field(ge=1, le=65535)]] = []
    max_url_length: int = Field(2048, ge=1)
    disable_loopback: bool = True


class WebhooksPart(_Part):
    """`headers` go with every delivery; `${{ env.NAME }}` in one is filled in, where NAME begins with `env_prefix`."""

    env_prefix: str = "LG_WEBHOOK_"
    url: WebhookUrlPart | None = None
    headers: dict[str, str] = {}


class ProjectFile(_Part):
    """langgraph.json, as far as it is used."""

    graphs: dict[str, Any] = {}
    dependencies: list[str] = []
    env: str | dict[str, str | int | float | bool] | None = None
    store: StorePart | None = None
    checkpointer: CheckpointerPart | None = None
    auth: AuthPart | None = None
    http: HttpPart = HttpPart()
    webhooks: WebhooksPart | None = None

    def unused(self) -> list[str]:
        """The keys that are accepted and have no effect here, as `store.index.model`."""
        named = [*_extras(self)]
        named += [f"dependencies: {one}" for one in self.dependencies if not one.startswith(".")]
        return [name for name in named if name != "$schema"]


@dataclass(frozen=True, slots=True)
class Project:
    """A langgraph.json: its folder, each graph's exported object, and why the others could not be loaded."""

    root: Path
    file: ProjectFile
    graphs: dict[str, Any]
    broken: dict[str, Broken] = field(default_factory=dict)
    auth: Auth | None = None

    @property
    def default(self) -> str:
        """The graph that /chat runs: `agent`, or else the first one named."""
        return DEFAULT if DEFAULT in self.file.graphs else next(iter(self.file.graphs))

    def types(self, names: Iterable[str]) -> list[Listed]:
        """The types that a setting names as "module:Type". Raises Invalid for one there is not.

        A file outside any package is loaded under another name, which its types then go by.
        """
        files = {
            name: getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith(LOADED)
        }
        loaded = {_dotted(Path(file), self.root): name for name, file in files.items() if file is not None}
        return [_checked(name, loaded) for name in names]

    @property
    def descriptions(self) -> dict[str, str]:
        """What the file says of its graphs."""
        entries = {
            name: entry.get("description") for name, entry in self.file.graphs.items() if isinstance(entry, dict)
        }
        return {name: text for name, text in entries.items() if isinstance(text, str)}


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a graph cannot be used. `reason` is for whoever runs the service; `place`, such as
    `src/agent.py:7: ImportError`, for its callers."""

    reason: str
    place: str


def read_project(config: Path) -> ProjectFile:
    """What a langgraph.json says; nothing is imported. Raises Invalid."""
    try:
        content = orjson.loads(config.read_bytes())
    except OSError as error:
        raise Invalid(f"{config} cannot be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{config} is not valid JSON: {error}.") from error
    try:
        file = ProjectFile.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = [f"{'.'.join(str(part) for part in item['loc']) or 'the file'}: {item['msg']}" for item in found]
        raise Invalid(f"{config} is not understood: {'; '.join(reasons)}.") from error
    if not file.graphs:
        raise Invalid(f'{config} names no graphs: it needs "graphs": {{"name": "./file.py:object"}}.')
    return file


def load_project(config: Path) -> Project:
    """Import what a langgraph.json names. Raises Invalid, saying what is wrong and where.

    A graph that cannot be imported does not keep the others from being served, as long as there is another.
    """
    file = read_project(config)
    root = config.resolve().parent
    _apply_env(file, root)
    _make_way(root)
    for folder in (root, *_local_dependencies(file, root)):
        _import_from(folder)
    if unused := file.unused():
        log.warning("project_keys_not_used", config=str(config), keys=unused)
    graphs, broken = dict[str, Any](), dict[str, Broken]()
    for graph_id, entry in file.graphs.items():
        try:
            graphs[graph_id] = _load_graph(graph_id, entry, root)
        except LoadError as error:
            broken[graph_id] = Broken(error.message, error.place)
    if not graphs:
        raise Invalid("\n".join(one.reason for one in broken.values()))
    for graph_id, one in broken.items():
        log.error("graph_broken", graph_id=graph_id, reason=one.reason)
    auth = load_object("auth.path", file.auth.path, root) if file.auth is not None else None
    if auth is not None and not isinstance(auth, Auth):
        raise Invalid(f"auth.path: {file.auth.path if file.auth else ''} is no langgraph_sdk.Auth.")
    return Project(root, file, graphs, broken, auth)


class LoadError(Invalid):
    """Something that langgraph.json names cannot be imported; `place` is where, without the text of an exception."""

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.place = place


def load_object(what: str, spelled: Any, root: Path) -> Any:
    """The object that `path/file.py:name` or `package.module:name` means. Raises LoadError, which names `what`."""
    path, _, name = spelled.rpartition(":") if isinstance(spelled, str) else ("", "", "")
    if not path or not name:
        raise LoadError(f'{what}: write it as "./file.py:object", not {spelled!r}.', "not understood")
    is_file = path.endswith(".py") or "/" in path
    source = root / path
    if is_file and not source.is_file():
        raise LoadError(f"{what}: there is no file {source}.", f"{path}: no such file")
    shown = str(source) if is_file else path
    try:
        found: Any = _import_file(source, root) if is_file else importlib.import_module(path)
    except (Exception, SystemExit) as error:
        place = place_of(error, root)
        where = f" ({place})" if place else ""
        kind = type(error).__name__
        raise LoadError(
            f"{what}: importing {shown} failed: {kind}: {error}{where}", f"{place or path}: {kind}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{what}: {shown} has no {name}.", f"{path}: no {name}")
        found = getattr(found, part)
    return found


def place_of(error: BaseException, root: Path) -> str:
    """The last line of the project's own that an exception came through, as `src/agent.py:7`; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for filename, line in reversed(places):
        path = Path(filename)
        if path.is_relative_to(root) and "site-packages" not in path.parts:
            return f"{path.relative_to(root)}:{line}"
    return ""


def _load_graph(graph_id: str, entry: Any, root: Path) -> Any:
    spelled = entry.get("path") if isinstance(entry, dict) else entry
    what = f"Graph {graph_id}"
    exported = load_object(what, spelled, root)
    if not isinstance(exported, StateGraph | Pregel) and not callable(exported):
        text = f"{what}: {spelled} is neither a graph nor a function that makes one."
        raise LoadError(text, f"{spelled}: neither a graph nor a function that makes one")
    return exported


def _import_file(file: Path, root: Path) -> ModuleType:
    """The module in a file. One in a package is imported as what it is there, so that its relative imports work.

    Any other has a name made of its path: checkpoints hold the names of types, which must be the same tomorrow.
    """
    file = file.resolve()
    top, parts = file.parent, [file.stem]
    while (top / "__init__.py").is_file():
        parts.insert(0, top.name)
        top = top.parent
    if parts[-1] == "__init__":
        parts.pop()
    namesake = sys.modules.get(parts[0])
    if len(parts) > 1 and (namesake is None or _lies_in(namesake, top)):
        _import_from(top)
        module = importlib.import_module(".".join(parts))
        if module.__file__ is not None and Path(module.__file__).resolve() == file:
            return module
    path = os.path.relpath(file.with_suffix(""), root)
    module_name = LOADED + "".join(letter if letter.isalnum() else f"_{ord(letter):x}" for letter in path)
    known = sys.modules.get(module_name)
    if known is not None and known.__file__ == str(file):
        return known
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _apply_env(file: ProjectFile, root: Path) -> None:
    """Set what `env` names and the environment does not. A file that is not there sets nothing: it often is not."""
    if isinstance(file.env, str):
        path = root / file.env
        if file.env and not path.is_file():
            log.warning("project_env_missing", file=str(path))
        values = dotenv_values(path, encoding="utf-8") if path.is_file() else {}
    else:
        values = {name: str(value) for name, value in (file.env or {}).items()}
    for name, value in values.items():
        if value is not None:
            os.environ.setdefault(name, value)


def _local_dependencies(file: ProjectFile, root: Path) -> Iterator[Path]:
    """The folders among the dependencies, and their `src`: what installing them would make importable."""
    for dependency in file.dependencies:
        folder = (root / dependency).resolve()
        if dependency.startswith(".") and folder.is_dir():
            yield folder
            if (folder / "src").is_dir():
                yield folder / "src"


def _import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


class _ProjectFirst(MetaPathFinder):
    """Finds a project's `api`, `graph` and `tools` before ours, also as folders without an `__init__.py`, which the
    usual search would pass over for any package of that name."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [self._root]) if fullname in SHARED_NAMES else None


def _make_way(root: Path) -> None:
    """Let the project have its own modules of our names. Ours stay bound wherever they are imported by now."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ProjectFirst)]
    sys.meta_path.insert(0, _ProjectFirst(root))
    for name, module in list(sys.modules.items()):
        if name.startswith(LOADED) or (name.partition(".")[0] in SHARED_NAMES and not _lies_in(module, root)):
            del sys.modules[name]


def _lies_in(module: ModuleType, root: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else getattr(module, "__path__", [])
    return any(Path(str(place)).is_relative_to(root) for place in places)


def _dotted(file: Path, root: Path) -> str:
    """What a file would be imported as by others of its project."""
    return ".".join(file.relative_to(root).with_suffix("").parts) if file.is_relative_to(root) else ""


def _checked(name: str, loaded: Mapping[str, str]) -> Listed:
    module, colon, kind = name.partition(":")
    listed = f"{loaded.get(module, module)}{colon}{kind}"
    try:
        names_of([listed])
    except Invalid as error:
        raise Invalid(f"THREADLINE_ALLOWED_TYPES: {name} is no type that can be found. Write module:Type.") from error
    return listed


def _extras(part: BaseModel, above: str = "") -> Iterator[str]:
    yield from (f"{above}{name}" for name, value in (part.model_extra or {}).items() if value is not None)
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from _extras(value, f"{above}{name}.")
