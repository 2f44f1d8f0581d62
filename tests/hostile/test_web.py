"""Addresses and pages that mean harm, given to the tool that reads pages: none leads inside, none takes the service."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from threadline.app.trust import trusted
from threadline.domain.egress import Blocked, Egress
from threadline.services.confined import Confined, Failed
from threadline.services.egress import Guard, guarded_client
from tools import news, web
from tools.contract import ToolFailure
from tools.toolbox import Toolbox

SECONDS = 3.0
SLACK = 6.0

INSIDE = {
    "loopback": "http://127.0.0.1:{port}/secret",
    "loopback elsewhere": "http://127.1.2.3:{port}/secret",
    "localhost": "http://localhost:{port}/secret",
    "localhost with a dot": "http://localhost.:{port}/secret",
    "a name below localhost": "http://x.localhost:{port}/secret",
    "in capitals": "HTTP://LOCALHOST:{port}/secret",
    "short form": "http://127.1:{port}/secret",
    "one number": "http://2130706433:{port}/secret",
    "hexadecimal": "http://0x7f000001:{port}/secret",
    "hexadecimal parts": "http://0x7f.0.0.1:{port}/secret",
    "octal": "http://0177.0.0.1:{port}/secret",
    "padded": "http://127.000.000.001:{port}/secret",
    "zero": "http://0:{port}/secret",
    "all zeros": "http://0.0.0.0:{port}/secret",
    "IPv6 loopback": "http://[::1]:{port}/secret",
    "IPv6 loopback in full": "http://[0:0:0:0:0:0:0:1]:{port}/secret",
    "IPv6 unspecified": "http://[::]:{port}/secret",
    "mapped": "http://[::ffff:127.0.0.1]:{port}/secret",
    "mapped in hexadecimal": "http://[::ffff:7f00:1]:{port}/secret",
    "compatible": "http://[::127.0.0.1]:{port}/secret",
    "NAT64": "http://[64:ff9b::7f00:1]:{port}/secret",
    "6to4": "http://[2002:7f00:1::]:{port}/secret",
    "Teredo": "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/secret",
    "link-local": "http://169.254.1.1/secret",
    "cloud metadata": "http://169.254.169.254/latest/meta-data/",
    "cloud metadata in one number": "http://2852039166/latest/meta-data/",
    "cloud metadata by IPv6": "http://[fd00:ec2::254]/latest/meta-data/",
    "private 10": "http://10.0.0.1/",
    "private 172": "http://172.16.0.1/",
    "private 192": "http://192.168.0.1/",
    "carrier": "http://100.64.0.1/",
    "benchmark": "http://198.18.0.1/",
    "broadcast": "http://255.255.255.255/",
    "multicast": "http://224.0.0.1/",
    "IPv6 unique local": "http://[fc00::1]/",
    "IPv6 link-local": "http://[fe80::1]/",
    "IPv6 with a zone": "http://[fe80::1%25lo]/",
    "full-width digits": "http://１２７.０.０.１:{port}/secret",
    "enclosed digits": "http://①②⑦.⓪.⓪.①:{port}/secret",
    "ideographic stop": "http://127。0。0。1:{port}/secret",
    "a user before the host": "http://example.org@127.0.0.1:{port}/secret",
    "a backslash": "http://example.org\\@127.0.0.1:{port}/secret",
    "a fragment": "http://127.0.0.1:{port}#@example.org/secret",
    "a name that stands for loopback": "http://inside.test:{port}/secret",
    "a name of which one address is inside": "http://both.test:{port}/secret",
    "a name that changes its mind": "http://rebinds.test:{port}/secret",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:{port}/secret",
    "ftp": "ftp://127.0.0.1/secret",
    "data": "data:text/html,secret",
    "javascript": "javascript:alert(1)",
    "dict": "dict://127.0.0.1:{port}/secret",
    "no scheme": "127.0.0.1:{port}/secret",
    "two slashes": "//127.0.0.1:{port}/secret",
    "unix socket": "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "no host": "http:///secret",
    "line break": "http://public.test:{port}/\r\nHost: inside",
    "null byte": "http://127.0.0.1\0.example.org/secret",
    "port of nothing": "http://public.test:99999/",
    "very long": "http://" + "a" * 1900 + ".test/",
    "no address": "읽어 줘",
}
"""None of these may be asked anything."""


class Names:
    """A name server of one's own. `rebinds.test` is public when it is looked up first and inside ever after."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        match host:
            case "public.test":
                return ["127.0.0.77"]
            case "inside.test":
                return ["127.0.0.1"]
            case "both.test":
                return ["127.0.0.77", "127.0.0.1"]
            case "rebinds.test":
                return ["192.0.2.1"] if self.asked.count(host) == 1 else ["127.0.0.1"]
        found = await asyncio.get_running_loop().getaddrinfo(host, port)
        return [str(place[0]) for *_, place in found]


Answer = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on every loopback address, its port, and the heads of the requests it got."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(writer, heads[-1])
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "0.0.0.0", 0)
    try:
        yield listening.sockets[0].getsockname()[1], heads
    finally:
        listening.close()


def toolbox_of(names: Names | None = None) -> Toolbox:
    """Only 127.0.0.77 is taken for a public address."""
    guard = Guard(Egress.parse(["127.0.0.77"]), resolve=names or Names())
    http = guarded_client(guard, verify=trusted(), timeout=SECONDS, headers={})
    http.max_redirects = 5
    parse = Confined(
        "tools.page_text:extract",
        seconds=SECONDS,
        memory=1_000_000_000,
        output=2_000_000,
        gate=asyncio.Semaphore(2),
    )
    return Toolbox([web.tool(http, parse=parse, refused=(Blocked, Failed), timeout=SECONDS)])


async def read(url: str, names: Names | None = None) -> Any:
    began = time.monotonic()
    outcome = await toolbox_of(names).call("web", {"url": url})
    assert time.monotonic() - began < SECONDS + SLACK
    return outcome


def page(body: bytes, *, status: str = "200 OK", kind: str = "text/html; charset=utf-8", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


async def tell_secret(writer: asyncio.StreamWriter, head: bytes) -> None:
    writer.write(page(b"<p>the secret inside</p>"))
    await writer.drain()


@pytest.mark.parametrize("name", INSIDE)
async def test_an_address_inside_is_not_asked(name: str) -> None:
    async with server(tell_secret) as (port, heads):
        outcome = await read(INSIDE[name].replace("{port}", str(port)))

    assert outcome.error, outcome.result
    assert heads == []


@pytest.mark.parametrize("name", [name for name in INSIDE if name not in {"line break", "null byte", "very long"}])
async def test_a_redirect_inside_is_not_followed(name: str) -> None:
    async def send_on(writer: asyncio.StreamWriter, head: bytes) -> None:
        place = INSIDE[name].replace("{port}", str(port)).encode()
        where = b"Location: " + place + b"\r\n"
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + where + b"\r\n")
        await writer.drain()

    async with server(send_on) as (port, heads):
        outcome = await read(f"http://public.test:{port}/")

    assert outcome.error, outcome.result
    assert {line for head in heads for line in head.split(b"\r\n") if line.lower().startswith(b"host:")} == {
        f"Host: public.test:{port}".encode()
    }


async def forever(writer: asyncio.StreamWriter, start: bytes, piece: bytes) -> None:
    writer.write(start)
    while True:
        writer.write(piece)
        await writer.drain()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
PAGES: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "a gigabyte": lambda writer: forever(writer, OK + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65536),
    "no end": lambda writer: forever(writer, OK + b"\r\n", b"<p>" * 10000),
    "chunks without end": lambda writer: forever(
        writer, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"
    ),
    "heads without end": lambda writer: forever(writer, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
    "a head line without end": lambda writer: forever(writer, b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 65536),
    "nothing at all": lambda writer: asyncio.sleep(SECONDS + SLACK),
}


def said(content: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return say


PAGES |= {
    "half a page": said(page(b"<p>half")[:-2]),
    "no HTTP": said(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a gzip bomb": said(page(gzip.compress(b"x" * 50_000_000), more="Content-Encoding: gzip\r\n")),
    "an unknown packing": said(page(b"x", more="Content-Encoding: br\r\n")),
    "a picture": said(page(b"\x89PNG", kind="image/png")),
    "a program": said(page(b"\x7fELF", kind="application/octet-stream")),
    "status 404": said(page(b"<p>no</p>", status="404 Not Found")),
    "status 500": said(page(b"<p>no</p>", status="500 Oh")),
    "a circle": said(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
    "tables within tables": said(page(b"<table>" + b"<tr><td>" * 100_000)),
}
HARMLESS = {
    "deep nesting": page(b"<div>" * 300_000),
    "many attributes": page(b"<a " + b"x=1 " * 500_000 + b">"),
    "entities": page(b"<p>" + b"&lt;" * 500_000),
    "an entity bomb": page(
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY a%d "%s">' % (n + 1, b"&a%d;" % n * 10) for n in range(9))
        + b"]><p>&a9;</p>",
        kind="application/xhtml+xml",
    ),
    "an outer entity": page(b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><p>' + b"words " * 50 + b"&a;</p>"),
    "bytes of no kind": page(bytes(range(256)) * 4000),
    "a lie about its encoding": page("<p>안녕하세요</p>".encode("cp949") * 50, kind="text/html; charset=utf-8"),
    "an encoding nobody knows": page(b"words", kind="text/plain; charset=klingon"),
    "an encoding that packs": page(b"words", kind="text/plain; charset=zlib_codec"),
    "text that is none": page(b"\xff\xfe\x00" * 1000, kind="text/plain"),
    "an empty page": page(b""),
    "a title without end": page(b"<title>" + b"a" * 1_000_000),
    "scripts": page(b"<script>alert(1)</script><p>" + b"words " * 50 + b"</p>"),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_that_is_not_taken(name: str) -> None:
    async with server(lambda writer, head: PAGES[name](writer)) as (port, _):
        outcome = await read(f"http://public.test:{port}/")

    assert outcome.error, outcome.result
    assert "127.0.0" not in outcome.error


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_page_that_is_odd(name: str) -> None:
    async with server(lambda writer, head: said(HARMLESS[name])(writer)) as (port, _):
        outcome = await read(f"http://public.test:{port}/")

    assert "root:" not in str(outcome.result)
    assert outcome.error or len(outcome.result["text"]) <= web.PART
    assert "alert(" not in str(outcome.result)


async def test_what_it_is_for() -> None:
    article = "<p>서울은 대한민국의 수도이며 가장 큰 도시이다. 한강이 도시를 가로지른다.</p>" * 300
    content = f"<html><head><title>서울</title></head><body><nav>메뉴</nav><article>{article}</article></body></html>"

    async def answer(writer: asyncio.StreamWriter, head: bytes) -> None:
        if head.startswith(b"GET /old"):
            writer.write(b"HTTP/1.1 301 Moved\r\nLocation: /seoul\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(page(content.encode()))
        await writer.drain()

    async with server(answer) as (port, heads):
        outcome = await read(f"http://public.test:{port}/old")

    assert outcome.error is None
    assert outcome.result["url"] == f"http://public.test:{port}/seoul"
    assert outcome.result["title"] == "서울"
    assert outcome.result["text"].startswith("서울은 대한민국의 수도이며")
    assert "메뉴" not in outcome.result["text"]
    assert outcome.result["more"]
    assert b"Accept-Encoding: identity" in heads[0]


FEEDS = {
    "nothing": b"",
    "no feed": b"<html><p>Not here</p></html>",
    "bytes of no kind": bytes(range(256)) * 1000,
    "an entity bomb": (
        b'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY a%d "%s">' % (n + 1, b"&a%d;" % n * 10) for n in range(9))
        + b"]><rss><channel><item><title>&a9;</title><link>http://a.test</link></item></channel></rss>"
    ),
    "an outer entity": (
        b'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        b"<rss><channel><item><title>&a;</title><link>http://a.test</link></item></channel></rss>"
    ),
    "links that are none": (
        b"<rss><channel><item><title>x</title><link>javascript:alert(1)</link></item>"
        b"<item><title>y</title><link>file:///etc/passwd</link></item></channel></rss>"
    ),
    "markup in a title": (
        b"<rss><channel><item><title>&lt;script&gt;alert(1)&lt;/script&gt;</title>"
        b"<link>http://a.test</link></item></channel></rss>"
    ),
    "a date that is none": (
        b"<rss><channel><item><title>x</title><link>http://a.test</link><pubDate>soon</pubDate></item></channel></rss>"
    ),
    "a year nobody lives in": (
        b"<rss><channel><item><title>x</title><link>http://a.test</link>"
        b"<pubDate>Mon, 01 Jan 99999 00:00:00 GMT</pubDate></item></channel></rss>"
    ),
}


@pytest.mark.parametrize("name", FEEDS)
async def test_a_feed_that_is_odd(name: str) -> None:
    async def download(url: str) -> bytes:
        return FEEDS[name]

    toolbox = Toolbox([news.tool({"paper": news.feed(download, name="paper", url="http://a.test")}, timeout=SECONDS)])
    async with asyncio.timeout(SECONDS + SLACK):
        outcome = await toolbox.call("news", {})

    assert "root:" not in str(outcome.result)
    assert "javascript" not in str(outcome.result)
    assert "<script" not in str(outcome.result)
    assert len(str(outcome.result)) < 2000


async def test_one_source_that_fails_does_not_take_the_others_along() -> None:
    async def fails(topic: str) -> list[news.Headline]:
        raise ToolFailure("away")

    async def works(topic: str) -> list[news.Headline]:
        return [news.Headline(title=topic, url="http://a.test", source="b", published=None, summary="")]

    toolbox = Toolbox([news.tool({"a": fails, "b": works}, timeout=SECONDS)])

    assert (await toolbox.call("news", {"topic": "날씨"})).result == {
        "topic": "날씨",
        "headlines": [{"title": "날씨", "url": "http://a.test", "source": "b", "published": None, "summary": ""}],
        "unavailable": ["a"],
    }
    assert (await toolbox.call("news", {"source": "a"})).error == "no news source could be used: a"
    assert (await toolbox.call("news", {"source": "c"})).error == "there is no source called c; there are: a, b"
