"""Webhooks: whoever a run names is told when it has ended, and nobody is sent where strangers must not be."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Start
from tests.service import ROOT, Client, process, running
from tests.stubs.certificates import Authority
from tests.stubs.web_hooks import Delivery, Receiver, receiver

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"
KEY = b"sixteen bytes, and a few more"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TOKENS = "tok0 tok1 tok2 tok3 tok4 "


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as stub:
        yield stub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """Each test has threads and a receiver of its own."""
    values = {"config": PROJECT, "webhook_hosts": ["127.0.0.1"], "webhook_secret": SECRET}
    async with running(tmp_path_factory.mktemp("signing") / "data", **values) as client:
        yield client


def asking(text: str, hook: Receiver, **body: Any) -> dict[str, Any]:
    said = {"messages": [{"role": "user", "content": text}]}
    return {"assistant_id": "agent", "input": said, "webhook": hook.url, **body}


async def thread(client: Client) -> str:
    thread_id: str = (await client.http.post("/threads", json={})).json()["thread_id"]
    return thread_id


async def run(client: Client, path: str, body: dict[str, Any]) -> Any:
    answer = await client.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(told: Any) -> list[str]:
    return [message["content"] for message in told["values"]["messages"]]


async def test_the_run_and_its_state_are_told(service: Client, hook: Receiver) -> None:
    thread_id = await thread(service)
    begun = await run(service, f"/threads/{thread_id}/runs", asking("hi", hook, metadata={"k": "v"}))

    [delivery] = await hook.got()
    told = delivery.json()

    shown = await service.json(f"/threads/{thread_id}/runs/{begun['run_id']}")
    times = {name: told.pop(name) for name in ("run_started_at", "run_ended_at", "webhook_sent_at")}
    values = told.pop("values")
    assert told == shown
    assert told["status"] == "success"
    assert told["metadata"]["k"] == "v"
    assert values == (await service.json(f"/threads/{thread_id}/state"))["values"]
    assert [message["content"] for message in values["messages"]] == ["hi", TOKENS]
    moments = [datetime.fromisoformat(at) for at in times.values()]
    assert moments == sorted(moments)
    assert delivery.headers["content-type"] == "application/json"


async def test_it_is_signed(service: Client, hook: Receiver) -> None:
    begun = await run(service, "/runs", asking("hi", hook))

    [delivery] = await hook.got()

    message, at = delivery.headers["webhook-id"], delivery.headers["webhook-timestamp"]
    signed = hmac.new(KEY, f"{message}.{at}.".encode() + delivery.body, hashlib.sha256).digest()
    assert delivery.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert begun["run_id"] in message
    assert abs(int(at) - time.time()) < 60


async def test_without_a_secret_it_is_not(start: Start, hook: Receiver) -> None:
    async with start(config=PROJECT, webhook_hosts=["127.0.0.0/8"]) as client:
        await run(client, "/runs", asking("hi", hook))
        [delivery] = await hook.got()

    assert "webhook-signature" not in delivery.headers
    assert delivery.headers["webhook-id"]


async def test_a_failure_is_told_without_its_internals(service: Client, hook: Receiver) -> None:
    thread_id = await thread(service)
    await run(service, f"/threads/{thread_id}/runs", asking("boom", hook))

    [delivery] = await hook.got()
    told = delivery.json()

    assert told["status"] == "error"
    assert told["error"]["error"] == "ValueError"
    assert texts(told) == ["boom"]
    assert b"hunter2" not in delivery.body


@pytest.mark.parametrize("mode", ["values", "updates"])
@pytest.mark.parametrize("path", ["/runs", "/runs/wait"])
async def test_a_run_whose_thread_goes_with_it(service: Client, hook: Receiver, path: str, mode: str) -> None:
    await run(service, path, asking("hi", hook, stream_mode=mode))

    [delivery] = await hook.got()

    assert delivery.json()["status"] == "success"
    assert texts(delivery.json()) == ["hi", TOKENS]


async def test_a_run_that_saves_at_its_end_only(service: Client, hook: Receiver) -> None:
    body = asking("hi", hook, durability="exit", stream_mode="updates")
    await run(service, f"/threads/{await thread(service)}/runs", body)

    [delivery] = await hook.got()

    assert texts(delivery.json()) == ["hi", TOKENS]


async def test_a_run_that_asks(service: Client, hook: Receiver) -> None:
    await run(service, f"/threads/{await thread(service)}/runs", asking("approve this", hook))

    [delivery] = await hook.got()
    told = delivery.json()

    assert told["status"] == "success"
    assert told["values"]["__interrupt__"][0]["value"] == {"question": "ok?", "for": "approve this"}


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_run_that_is_stopped(service: Client, hook: Receiver, action: str) -> None:
    thread_id = await thread(service)
    begun = await run(service, f"/threads/{thread_id}/runs", asking("forever", hook))
    async with asyncio.timeout(20):
        while not (await service.json(f"/threads/{thread_id}/state"))["values"]:
            await asyncio.sleep(0.02)
    path = f"/threads/{thread_id}/runs/{begun['run_id']}/cancel"
    await service.http.post(path, params={"wait": "true", "action": action})

    [delivery] = await hook.got()
    told = delivery.json()

    assert told["run_id"] == begun["run_id"]
    assert told["status"] == "interrupted"
    assert "error" not in told
    assert told["values"] == {} if action == "rollback" else texts(told) == ["forever"]


async def test_a_stream_ends_while_the_receiver_hangs(start: Start) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # until the service hangs up
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        body = {"assistant_id": "bench", "input": {"messages": [{"role": "user", "content": "1"}]}, "webhook": url}
        async with start(config=PROJECT, webhook_hosts=["127.0.0.1"]) as client:
            answer = await client.http.post("/runs/stream", json=body)
            assert answer.text.count("event: values") == 2
            async with asyncio.timeout(20):
                await asked.wait()


async def test_it_is_tried_again(start: Start) -> None:
    async with receiver(503, 200) as hook, start(config=PROJECT, webhook_hosts=["127.0.0.1"]) as client:
        await run(client, "/runs", asking("hi", hook))
        first, second = await hook.got(2)

    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_what_a_killed_service_had_to_tell_is_told_by_the_next_one(tmp_path: Path) -> None:
    """Of a run on a thread, of one without, and of one that was going on when the service was killed."""
    data, options = tmp_path / "data", ("--config", str(PROJECT))
    environment = {"THREADLINE_WEBHOOK_HOSTS": "127.0.0.1", "THREADLINE_WEBHOOK_SECRET": SECRET}
    async with receiver(503, 503) as hook:
        async with process(data, *options, **environment) as (service, client):
            going_on = f"/threads/{await thread(client)}/runs"
            cut_off = await run(client, going_on, asking("forever", hook))
            kept_run = await run(client, f"/threads/{await thread(client)}/runs", asking("hi", hook))
            temporary = await run(client, "/runs", asking("hi", hook))
            await hook.got(2)  # two are told in vain, and about to be told again
            assert (await client.json(f"{going_on}/{cut_off['run_id']}"))["status"] == "running"
            service.send(signal.SIGKILL)
            await service.ended(seconds=10)

        async with process(data, *options, **environment) as (_, client):
            await hook.got(4)
            await client.http.post(f"{going_on}/{cut_off['run_id']}/cancel?wait=true")
            deliveries = list(await hook.got(5))
            async with asyncio.timeout(10):
                while kept(data):
                    await asyncio.sleep(0.02)

    of: dict[str, list[Delivery]] = {}
    for one in deliveries:
        of.setdefault(one.json()["run_id"], []).append(one)
    assert {run_id: len(told) for run_id, told in of.items()} == {
        cut_off["run_id"]: 1,
        kept_run["run_id"]: 2,
        temporary["run_id"]: 2,
    }
    assert of[cut_off["run_id"]][0].json()["status"] == "interrupted"
    for begun in (kept_run, temporary):
        first, again = of[begun["run_id"]]
        assert texts(again.json()) == ["hi", TOKENS]
        assert again.body == first.body
        assert again.headers["webhook-id"] == first.headers["webhook-id"] == f"run_{begun['run_id']}"
        signed = f"run_{begun['run_id']}.{again.headers['webhook-timestamp']}.".encode() + again.body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert again.headers["webhook-signature"] == f"v1,{expected}"


async def test_a_service_that_stops_leaves_what_is_still_to_be_told_to_the_next_one(
    start: Start, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"config": PROJECT, "webhook_hosts": ["127.0.0.1"]}
    async with receiver(*[503] * 9) as hook:
        async with start(**values) as client:
            begun = await run(client, "/runs", asking("hi", hook))
            await hook.got()
        before = len(hook.deliveries)
        hook.statuses.clear()
        async with start(**values):
            await hook.got(before + 1)
        async with start(**values):
            assert kept(tmp_path / "data") == 0
    assert len(hook.deliveries) == before + 1, "told again after it was taken"
    assert {one.headers["webhook-id"] for one in hook.deliveries} == {f"run_{begun['run_id']}"}


def kept(data: Path) -> int:
    """How many deliveries are still to be made."""
    with closing(sqlite3.connect(data / "history.db", timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM deliveries").fetchone()[0])


async def test_a_thread_that_is_deleted_takes_along_what_was_still_to_be_told(start: Start, tmp_path: Path) -> None:
    async with receiver(*[503] * 9) as hook, start(config=PROJECT, webhook_hosts=["127.0.0.1"]) as client:
        thread_id = await thread(client)
        await run(client, f"/threads/{thread_id}/runs", asking("hi", hook))
        await hook.got()
        assert kept(tmp_path / "data") == 1
        assert (await client.http.delete(f"/threads/{thread_id}")).status_code == 204
        assert kept(tmp_path / "data") == 0


async def test_over_https_by_a_certificate_of_its_name(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver's certificate is for its name; the connection is made to the address that was vetted."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    async with receiver(tls=authority.certify("localhost")) as hook:
        async with start(config=PROJECT, webhook_hosts=["localhost"]) as client:
            body = {**asking("hi", hook), "webhook": f"https://localhost:{hook.port}/hook"}
            await run(client, "/runs", body)
            [told] = await hook.got()
    assert hook.names == ["localhost"]
    assert told.headers["host"] == f"localhost:{hook.port}"
    assert texts(told.json()) == ["hi", TOKENS]


@pytest.mark.parametrize("status", [302, 307, 400, 410])
async def test_a_refusal_is_final_and_a_redirect_leads_nowhere(start: Start, status: int) -> None:
    async with receiver(status) as hook:
        async with start(config=PROJECT, webhook_hosts=["127.0.0.1"]) as client:
            await run(client, "/runs", asking("hi", hook))
            await hook.got()
        # The service has stopped, and with it all that it might still have tried.
        assert [delivery.path for delivery in hook.deliveries] == ["/hook"]


# What a project says of them


def project(folder: Path, **parts: Any) -> Path:
    config = folder / "langgraph.json"
    graphs = {"agent": f"{PROJECT.parent / 'graphs.py'}:agent"}
    config.write_text(json.dumps({"graphs": graphs, **parts}))
    return config


REFUSED = {
    "http://hooks.example.com/": "Webhook must use https",
    "https://elsewhere.example/": "Webhook domain not allowed",
    "https://example.com/": "Webhook domain not allowed",
    "https://notexample.com/": "Webhook domain not allowed",
    "https://a.example.com.evil.example/": "Webhook domain not allowed",
    "https://a.example.com:444/": "Webhook port 444 not allowed",
    f"https://a.example.com/{'x' * 100}": "Webhook URL too long",
    "https://127.0.0.1/": "Webhook domain not allowed",
    "https://nothing.example.com/": "Webhook host blocked: DNS resolution failed",
    "https://Hook.Example.Invalid./": "Webhook host blocked: DNS resolution failed",
    "/hook": "Webhook host blocked: not an absolute URL",
}


async def test_a_project_says_which_addresses_may_be_named(start: Start, tmp_path: Path) -> None:
    domains = ["*.example.com", "hook.example.invalid"]
    policy = {"allowed_domains": domains, "allowed_ports": [443, 8443], "max_url_length": 99}
    async with start(config=project(tmp_path, webhooks={"url": policy})) as client:
        for url, reason in REFUSED.items():
            answer = await client.http.post("/runs/wait", json={"assistant_id": "agent", "input": {}, "webhook": url})
            assert (url, answer.status_code, answer.json()) == (url, 422, {"detail": reason})


async def test_a_project_gives_deliveries_headers(start: Start, tmp_path: Path, hook: Receiver) -> None:
    headers = {"X-Shown": "as ${{ env.LG_WEBHOOK_WHO }}/${{env.LG_WEBHOOK_WHAT}}", "Webhook-Id": "mine"}
    config = project(
        tmp_path,
        env={"LG_WEBHOOK_WHO": "us", "LG_WEBHOOK_WHAT": "it"},
        webhooks={"headers": headers, "url": {"require_https": False}},
    )
    async with start(config=config, webhook_hosts=["127.0.0.1"]) as client:
        begun = await run(client, "/runs", asking("hi", hook))
        [told] = await hook.got()
    assert told.headers["x-shown"] == "as us/it"
    assert told.headers["webhook-id"] == f"run_{begun['run_id']}", "a header of ours was replaced"
    assert told.headers["content-type"] == "application/json"


async def test_a_project_turns_them_off(start: Start, tmp_path: Path, hook: Receiver) -> None:
    config = project(tmp_path, http={"disable_webhooks": True})
    async with start(config=config, webhook_hosts=["127.0.0.1"]) as client:
        state = await run(client, "/runs/wait", asking("hi", hook))
        assert state["messages"][-1]["content"] == TOKENS
        assert kept(tmp_path / "data") == 0
    assert hook.deliveries == []


BLOCKED = {
    "/hook": "not an absolute URL",
    "nonsense": "not an absolute URL",
    "//example.com/": "not an absolute URL",
    "": "not an absolute URL",
    "http://[/": "DNS resolution failed",
    "http:///x": "no host",
    "ftp://example.com/": "scheme 'ftp' not allowed",
    "file:///etc/passwd": "scheme 'file' not allowed",
    "http://me:secret@example.com/": "credentials in the URL",
    "http://localhost:1/": "localhost address",
    "http://LOCALHOST./": "localhost address",
    "http://a.localhost/": "localhost address",
    "http://nothing.invalid/": "DNS resolution failed",
    "http://127.0.0.1:1/": "loopback IP range",
    "http://127.1/": "loopback IP range",
    "http://2130706433/": "loopback IP range",
    "http://0x7f000001/": "loopback IP range",
    "http://[::1]/": "loopback IP range",
    "http://[::ffff:127.0.0.1]/": "loopback IP range",
    "http://0.0.0.0/": "blocked IP range",
    "http://10.0.0.1/": "blocked IP range",
    "https://192.168.0.1/": "blocked IP range",
    "http://169.254.169.254/latest/meta-data": "blocked IP range",
    "http://[fd00:ec2::254]/": "blocked IP range",
    "http://[fe80::1]/": "blocked IP range",
    "http://224.0.0.1/": "blocked IP range",
}


async def test_what_is_refused(start: Start) -> None:
    async with start(config=PROJECT) as client:
        thread_id = await thread(client)
        for url, reason in BLOCKED.items():
            for path in (f"/threads/{thread_id}/runs", "/runs/wait"):
                body = {"assistant_id": "agent", "input": {"messages": []}, "webhook": url}
                answer = await client.http.post(path, json=body)
                assert (url, answer.status_code, answer.json()) == (
                    url,
                    422,
                    {"detail": f"Webhook host blocked: {reason}"},
                )
        assert await client.json(f"/threads/{thread_id}/runs") == []
