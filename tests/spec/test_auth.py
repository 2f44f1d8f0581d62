"""A project's own `langgraph_sdk.Auth`: who asks, and what they may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.conftest import Start
from tests.service import Client, running, said, settings
from threadline.app.server import run
from threadline.domain.errors import Denied, Forbidden, Invalid, ThreadlineError
from threadline.domain.records import Caller, User
from threadline.services.auth import LOCAL
from threadline.services.permission import Permission, configurable, matches, user_of

AUTH = """
import dataclasses
from langgraph_sdk import Auth
from starlette.exceptions import HTTPException

auth = Auth()


@dataclasses.dataclass
class Person:
    identity: str
    permissions: list
    team: str = "red"


@auth.authenticate
async def who(authorization):
    match authorization:
        case None:
            raise Auth.exceptions.HTTPException(status_code=401, detail="no token", headers={"www-authenticate": "X"})
        case "teapot":
            raise Auth.exceptions.HTTPException(status_code=418, detail={"tea": "hot"})
        case "starlette":
            raise HTTPException(402, "pay first")
        case "broken":
            raise RuntimeError("a secret text")
        case "nobody":
            return None
        case "empty":
            return {"identity": ""}
        case "not authenticated":
            return {"identity": "x", "is_authenticated": False}
        case "object":
            return Person("object", ["p"])
        case "*" | "a.b@c" | "string":
            return authorization
    return {"identity": authorization, "permissions": ["p"], "email": "e@x"}


@auth.on.store
async def own_namespace(ctx, value):
    user = ctx.user.identity
    if user == "denied":
        return False
    if user == "broken handler":
        raise RuntimeError("a secret text")
    if user == "bad filter":
        return {"x": {"$bogus": 1}}
    if user == "gone":
        raise Auth.exceptions.HTTPException(status_code=404, detail="gone")
    if user == "filtered":
        return {"owner": "filtered"}
    assert ctx.resource == "store" and ctx.permissions == ctx.user["permissions"]
    value["namespace"] = (user.replace(".", "_"), *(value["namespace"] or ()))


@auth.on.store.delete
async def never(ctx, value):
    return ctx.user.identity == "admin"
"""

SEES = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
def who(request, scope, body, path, method, path_params, query_params, headers, authorization, other=5):
    asked = (request.url.path, scope["path"], path, method, dict(query_params), authorization, body, other)
    wanted = ("/store/items/search",) * 3 + ("POST", {"q": "1"}, "me", {"namespace_prefix": ["a"]}, 5)
    same = asked == wanted and headers[b"authorization"] == b"me" and path_params == {}
    return {"identity": "me"} if same else {"identity": "", "asked": asked}
"""

OPEN = """
from langgraph_sdk import Auth

auth = Auth()


@auth.on
async def nobody(ctx, value):
    return False
"""


def project(tmp_path: Path, auth: str) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "agent.py").write_text(
        "from langgraph.graph import START, MessagesState, StateGraph\n"
        "graph = StateGraph(MessagesState)\n"
        "graph.add_node('n', lambda state: {})\n"
        "graph.add_edge(START, 'n')\n"
    )
    (folder / "auth.py").write_text(auth)
    file = {"graphs": {"agent": "./agent.py:graph"}, "auth": {"path": "./auth.py:auth", "disable_studio_auth": False}}
    (folder / "langgraph.json").write_text(json.dumps(file))
    return folder / "langgraph.json"


in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """Each test asks it as somebody of its own."""
    folder = tmp_path_factory.mktemp("guarded")
    async with running(folder / "data", config=project(folder, AUTH), api_keys="an-old-key-71ff") as service:
        service.http.headers.pop("x-api-key")
        yield service


async def ask(service: Client, who: str | None, method: str, path: str, body: Any = None) -> httpx.Response:
    headers = {"authorization": who} if who is not None else {}
    return await service.http.request(method, path, json=body, headers=headers)


@in_one_loop
async def test_the_projects_handler_says_who_asks(guarded: Client) -> None:
    for who in ("ada", "object", "string", "a.b@c"):
        kept = await ask(guarded, who, "PUT", "/store/items", {"namespace": ["m"], "key": "k", "value": {"of": who}})
        assert kept.status_code == 204, kept.text
    found = (await ask(guarded, "ada", "POST", "/store/items/search", {"namespace_prefix": []})).json()
    named = (await ask(guarded, "a.b@c", "POST", "/store/namespaces", {})).json()

    assert [(item["namespace"], item["value"]) for item in found["items"]] == [(["ada", "m"], {"of": "ada"})]
    assert named == {"namespaces": [["a_b@c", "m"]]}


@pytest.mark.parametrize(
    ("who", "status", "body"),
    [
        (None, 401, {"detail": "no token"}),
        ("teapot", 418, {"detail": {"tea": "hot"}}),
        ("starlette", 402, {"detail": "pay first"}),
        ("not authenticated", 401, {"detail": "Unauthorized"}),
    ],
)
@in_one_loop
@pytest.mark.parametrize("path", ["/store/items?namespace=a&key=k", "/sessions", "/docs", "/nowhere"])
async def test_refused(guarded: Client, who: str | None, status: int, body: Any, path: str) -> None:
    refused = await ask(guarded, who, "GET", path)

    assert (refused.status_code, refused.json()) == (status, body)
    assert refused.headers.get("www-authenticate") == ("X" if who is None else None)


@in_one_loop
@pytest.mark.parametrize("who", ["broken", "nobody", "empty", "broken handler", "bad filter"])
async def test_a_handler_that_fails_lets_nobody_in_and_tells_nothing(guarded: Client, who: str) -> None:
    refused = await ask(guarded, who, "GET", "/store/items?namespace=a&key=k")

    assert refused.status_code == 500
    assert "secret" not in refused.text
    assert "log says why" in refused.json()["detail"]


@in_one_loop
async def test_handlers_say_what_callers_may_do(guarded: Client) -> None:
    item = {"namespace": ["m"], "key": "k", "value": {}}
    requests = [
        ("PUT", "/store/items", item),
        ("GET", "/store/items?namespace=m&key=k", None),
        ("POST", "/store/items/search", {}),
        ("POST", "/store/namespaces", {}),
    ]
    for method, path, body in requests:
        denied = await ask(guarded, "denied", method, path, body)
        assert (denied.status_code, denied.json()) == (403, {"detail": "Forbidden"})
        gone = await ask(guarded, "gone", method, path, body)
        assert (gone.status_code, gone.json()) == (404, {"detail": "gone"})
    assert (await ask(guarded, "ada", "DELETE", "/store/items", item)).status_code == 403
    assert (await ask(guarded, "admin", "DELETE", "/store/items", item)).status_code == 204


async def test_a_filter_holds_for_all_that_is_done(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path, AUTH)) as service:
        await a_filter_holds(service)


async def a_filter_holds(guarded: Client) -> None:
    async def as_(who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return await ask(guarded, who, method, path, body)

    def item(owner: str, *namespace: str) -> dict[str, Any]:
        return {"namespace": [*namespace, "m"], "key": owner, "value": {"owner": owner, "n": 1}}

    assert (await as_("ada", "PUT", "/store/items", item("another"))).status_code == 204
    assert (await as_("filtered", "PUT", "/store/items", item("filtered", "ada"))).status_code == 204
    assert (await as_("filtered", "PUT", "/store/items", item("another"))).status_code == 403
    over = {**item("filtered", "ada"), "key": "another"}
    assert (await as_("filtered", "PUT", "/store/items", over)).status_code == 403
    mine = await as_("filtered", "GET", "/store/items?namespace=ada.m&key=filtered")
    other = await as_("filtered", "GET", "/store/items?namespace=ada.m&key=another")
    found = await as_("filtered", "POST", "/store/items/search", {"filter": {"n": 1}})
    none = await as_("filtered", "POST", "/store/items/search", {"filter": {"n": 2}})

    assert mine.json()["value"]["owner"] == "filtered"
    assert other.json() is None
    assert [found["key"] for found in found.json()["items"]] == ["filtered"]
    assert none.json() == {"items": []}


@in_one_loop
async def test_studio_is_nobody_special(guarded: Client) -> None:
    studio = {"x-auth-scheme": "langsmith", "x-api-key": "an-old-key-71ff"}
    refused = await guarded.http.post("/store/items/search", json={}, headers=studio)

    assert (refused.status_code, refused.json()) == (401, {"detail": "no token"})


@in_one_loop
async def test_sessions_belong_to_who_the_handler_says(guarded: Client) -> None:
    started = await ask(guarded, "ada", "POST", "/chat", {**said("hello"), "stream": False})
    mine = await ask(guarded, "ada", "GET", "/sessions")
    others = await ask(guarded, "bob", "GET", "/sessions")

    assert started.status_code == 200, started.text
    assert len(mine.json()["items"]) == 1
    assert others.json()["items"] == []


@in_one_loop
@pytest.mark.parametrize("path", ["/ok", "/ready", "/info", "/", "/static/assets/index.js"])
async def test_what_is_open_to_all(guarded: Client, path: str) -> None:
    answer = await ask(guarded, None, "GET", path)

    assert answer.status_code == 200
    if path == "/ready":
        assert answer.json() == {"ready": True}


async def test_a_handler_is_given_what_it_asks_for_and_the_route_its_body(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path, SEES)) as service:
        found = await service.http.post(
            "/store/items/search?q=1", json={"namespace_prefix": ["a"]}, headers={"authorization": "me"}
        )
        large = await service.http.post("/store/items/search", content=b'{"x": "' + b"y" * 1_100_000 + b'"}')
        chunked = await service.http.post("/store/items/search", content=chunks(1_100_000))
        none = await service.http.post("/store/items/search", content=b"{nope", headers={"authorization": "me"})

    assert (found.status_code, found.json()) == (200, {"items": []})
    assert large.status_code == chunked.status_code == 413
    assert none.status_code == 500  # this handler wants another body


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 10_000):
        yield b"y" * 10_000


async def test_handlers_without_authentication_leave_the_keys_in_force(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path, OPEN), api_keys="alice-3f9c2b7d1e") as service:
        denied = await service.http.post("/store/items/search", json={})
        async with httpx.AsyncClient(base_url=service.http.base_url) as stranger:
            unknown = await stranger.post("/store/items/search", json={})

    assert (denied.status_code, unknown.status_code) == (403, 401)


async def test_other_hosts_need_a_handler_that_says_who_asks(tmp_path: Path) -> None:
    with pytest.raises(Denied, match="--insecure"):
        await run(settings(tmp_path / "data", config=project(tmp_path, OPEN), host="0.0.0.0"))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("auth = 5", "no langgraph_sdk.Auth"),
        ("import nothing_like_it", r"auth.path: importing .*auth.py failed: ModuleNotFoundError.*auth.py:1"),
        ("from langgraph_sdk import Auth\nauth = Auth()\n@auth.authenticate\nasync def a(what): ...", "asks for what"),
    ],
)
async def test_an_auth_that_is_none_stops_the_start(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        await run(settings(tmp_path / "data", config=project(tmp_path, source)))


# Which handler decides


def decided(*registered: str) -> Permission:
    """Handlers that each answer with a filter naming themselves."""
    from langgraph_sdk import Auth

    auth = Auth()
    places = {
        "all": auth.on,
        "threads": auth.on.threads,
        "threads.create": auth.on.threads.create,
        "any.create": auth.on(actions="create"),
        "threads.create_run": auth.on.threads.create_run,
        "store": auth.on.store,
        "store.put": auth.on(resources="store", actions="put"),
    }
    for name in registered:

        async def handler(ctx: Any, value: Any, name: str = name) -> Any:
            value.setdefault("metadata", {})["by"] = name
            return {"by": name}

        places[name](handler)  # type: ignore[operator]
    return Permission(auth)


@pytest.mark.parametrize(
    ("registered", "resource", "action", "by"),
    [
        (("all", "threads", "threads.create"), "threads", "create", "threads.create"),
        (("all", "threads", "threads.create"), "threads", "read", "threads"),
        (("all", "threads", "threads.create"), "crons", "read", "all"),
        (("all", "any.create", "threads"), "threads", "create", "threads"),
        (("all", "any.create", "threads"), "assistants", "create", "any.create"),
        (("threads.create_run",), "threads", "create_run", "threads.create_run"),
        (("store", "store.put"), "store", "put", "store.put"),
        (("store", "store.put"), "store", "get", "store"),
        (("threads",), "store", "get", None),
        ((), "threads", "create", None),
    ],
)
async def test_the_most_specific_handler_decides(
    registered: tuple[str, ...], resource: Any, action: Any, by: str | None
) -> None:
    value: dict[str, Any] = {}
    allowed = await decided(*registered).allow(LOCAL, resource, action, value)

    assert allowed == ({"by": by} if by else None)
    assert value == ({"metadata": {"by": by}} if by else {})


def test_where_handlers_govern_they_alone_decide_whose_things_are_whose() -> None:
    caller = Caller("ada")

    assert decided().scope(caller) == "ada"
    assert decided("store").scope(caller) == "shared"
    assert decided("threads").scope(caller) == "ada"
    assert decided("all").scope(caller) == "shared"


@pytest.mark.parametrize("answer", ["yes", 1, []])
async def test_an_answer_that_is_none_allows_nothing(answer: Any) -> None:
    from langgraph_sdk import Auth

    auth = Auth()

    @auth.on
    async def handler(ctx: Any, value: Any) -> Any:
        return answer

    with pytest.raises(Forbidden):
        await Permission(auth).allow(LOCAL, "threads", "read", {})


def test_filters_on_metadata() -> None:
    assert matches(None, {})
    assert matches({"owner": "ada"}, {"owner": "ada", "x": 1})
    assert not matches({"owner": "ada"}, {})
    assert matches(
        {"owner": {"$eq": "ada"}, "people": {"$contains": ["b", "a"]}}, {"owner": "ada", "people": ["a", "b"]}
    )
    assert not matches({"people": {"$contains": "c"}}, {"people": ["a", "b"]})
    assert matches({"team": {"name": "red"}}, {"team": {"name": "red", "size": 3}})


def test_graph_code_is_told_who_asks() -> None:
    user = User(identity="ada", permissions=["p"], email="e@x")
    told = configurable(Caller("ada", user))

    assert configurable(LOCAL) == {}
    assert told["langgraph_auth_user"].email == told["langgraph_auth_user"]["email"] == "e@x"
    assert (told["langgraph_auth_user_id"], told["langgraph_auth_permissions"]) == ("ada", ["p"])
    kept = user_of(json.loads(json.dumps(told)))
    assert kept is not None
    assert kept.identity == "ada"
    with pytest.raises(AttributeError):
        _ = kept.nothing


async def test_a_handler_that_fails_is_no_refusal() -> None:
    with pytest.raises(ThreadlineError, match="log says why"):
        await failing().allow(LOCAL, "threads", "read", {})


def failing() -> Permission:
    from langgraph_sdk import Auth

    auth = Auth()

    @auth.on
    async def handler(ctx: Any, value: Any) -> Any:
        raise AssertionError("a secret text")

    return Permission(auth)
