"""Where strangers may send the service, and that it connects to what was vetted and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from tests.service import settings
from tests.stubs.certificates import Authority
from tests.stubs.web_hooks import receiver
from threadline.app.trust import trusted
from threadline.domain.egress import Blocked, Egress, Unresolved
from threadline.domain.events import Event
from threadline.domain.records import Run
from threadline.services.egress import Guard, guarded_client
from threadline.services.hook_policy import HookPolicy
from threadline.services.webhooks import Webhooks
from threadline.storage.database import open_database
from threadline.storage.deliveries import SqlDeliveries

PUBLIC = ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700:4700::1111"]
PRIVATE = [
    *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.0.192", "198.18.0.1", "203.0.113.5"),
    *("::", "::ffff:10.0.0.1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2002:a00:1::"),
    *("64:ff9b::a00:1", "64:ff9b:1::1", "2001:db8::1", "2001::1", "::8.8.8.8"),
]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "::7f00:1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_asked(address: str) -> None:
    Egress().check_addresses("host", [address])


@pytest.mark.parametrize("address", [*PRIVATE, *LOOPBACK])
def test_others_may_not_even_beside_a_public_one(address: str) -> None:
    with pytest.raises(Blocked) as caught:
        Egress().check_addresses("host", ["8.8.8.8", address])
    assert caught.value.message == ("loopback IP range" if address in LOOPBACK else "blocked IP range")


def test_what_is_listed_may_be_asked() -> None:
    rules = Egress.parse(["10.0.0.0/8", "::1", "Intranet.example."])

    rules.check_addresses("any", ["10.1.2.3", "::ffff:10.1.2.3", "::1"])
    rules.check_addresses("intranet.example", ["192.168.0.1"])
    for host, address in (("any", "192.168.0.1"), ("x.intranet.example", "192.168.0.1"), ("any", "127.0.0.1")):
        with pytest.raises(Blocked):
            rules.check_addresses(host, [address])


@pytest.mark.parametrize("hosts", ["http://x", "a b", "10.0.0.1/8/8", "*.example", "x:80"])
def test_a_list_that_makes_no_sense_stops_the_start(hosts: str, tmp_path) -> None:
    with pytest.raises(ValidationError, match="webhook_hosts"):
        settings(tmp_path, webhook_hosts=hosts)


@pytest.mark.parametrize("secret", ["tiny", "whsec_???", "whsec_YWJj"])
def test_so_does_a_secret_that_is_none(secret: str, tmp_path) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(tmp_path, webhook_secret=secret)
    [error] = caught.value.errors()
    assert error["loc"] == ("webhook_secret",)
    assert secret not in error["msg"]


class Names:
    """A name server whose answers are given in turn, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if not self._answers[0]:
            raise OSError("no such name")
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def client_of(guard: Guard) -> httpx.AsyncClient:
    return guarded_client(guard, verify=trusted(), timeout=5, headers={})


async def test_it_connects_to_the_address_that_was_vetted() -> None:
    async with receiver() as stub:
        names = Names(["127.0.0.1"], ["10.0.0.1"])
        guard = Guard(Egress.parse(["127.0.0.1"]), resolve=names)
        async with client_of(guard) as http:
            answer = await http.post(f"http://hook.example:{stub.port}/x")

            assert answer.status_code == 200
            assert names.asked == ["hook.example"]  # nobody looked it up a second time
            assert stub.deliveries[0].headers["host"] == f"hook.example:{stub.port}"

            with pytest.raises(Blocked):  # now the name means another
                await http.post(f"http://hook.example:{stub.port}/x")
    assert len(stub.deliveries) == 1


async def asked(url: str, guard: Guard) -> int:
    async with client_of(guard) as http:
        return (await http.post(url)).status_code


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that is trusted, as an operator says it is."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


async def test_over_tls_the_host_keeps_its_name_while_its_address_is_pinned(authority: Authority) -> None:
    async with receiver(tls=authority.certify("hook.example")) as stub:
        names = Names(["127.0.0.1"], ["10.0.0.1"])
        guard = Guard(Egress.parse(["127.0.0.1"]), resolve=names)

        assert await asked(f"https://hook.example:{stub.port}/x", guard) == 200
    assert names.asked == ["hook.example"]
    assert stub.names == ["hook.example"]
    assert stub.deliveries[0].headers["host"] == f"hook.example:{stub.port}"


async def test_over_tls_an_address_is_certified_as_such(authority: Authority) -> None:
    async with receiver(tls=authority.certify("127.0.0.1")) as stub:
        assert await asked(f"https://127.0.0.1:{stub.port}/x", Guard(Egress.parse(["127.0.0.1"]))) == 200
    assert stub.names == [None]


@pytest.mark.parametrize("certified", ["other.example", "127.0.0.1"])
async def test_over_tls_another_name_is_not_believed(authority: Authority, certified: str) -> None:
    """Nor the address itself: whoever has it now need not be whom the name means."""
    async with receiver(tls=authority.certify(certified)) as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]), resolve=Names(["127.0.0.1"]))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await asked(f"https://hook.example:{stub.port}/x", guard)
    assert stub.deliveries == []


async def test_over_tls_an_authority_nobody_trusts_is_not_believed(tmp_path: Path) -> None:
    async with receiver(tls=Authority(tmp_path).certify("hook.example")) as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]), resolve=Names(["127.0.0.1"]))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await asked(f"https://hook.example:{stub.port}/x", guard)
    assert stub.deliveries == []


async def test_an_address_that_does_not_answer_is_passed_over() -> None:
    async with receiver() as stub:
        guard = Guard(Egress.parse(["127.0.0.1", "::1"]), resolve=Names(["::1", "127.0.0.1"]))
        async with client_of(guard) as http:
            assert (await http.post(f"http://hook.example:{stub.port}/")).status_code == 200


async def test_a_name_that_moves_inside_after_the_run_began_is_not_followed(deliveries: SqlDeliveries) -> None:
    async with receiver() as stub:
        names = Names(["8.8.8.8"], ["127.0.0.1"])
        guard = Guard(Egress(), resolve=names)
        http = client_of(guard)
        webhooks = webhooks_of(http, guard, deliveries)
        async with webhooks.open():
            url = f"http://hook.example:{stub.port}/"
            await webhooks.check(url)
            await tell(webhooks, a_run(url))
    assert len(names.asked) == 2
    assert stub.deliveries == []


async def test_it_gives_up_after_its_last_attempt(deliveries: SqlDeliveries) -> None:
    async with receiver(500, 429, 503, 500) as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]))
        http = client_of(guard)
        webhooks = webhooks_of(http, guard, deliveries)
        async with webhooks.open():
            await tell(webhooks, a_run(stub.url))
            await stub.got(3)
    assert len(stub.deliveries) == 3
    assert stub.statuses == [500]
    assert await deliveries.pending(limit=9) == []


async def test_attempts_of_an_earlier_process_count(deliveries: SqlDeliveries) -> None:
    async with receiver(503, 503, 500) as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]))
        first = webhooks_of(client_of(guard), guard, deliveries, pauses=(0, 3600))
        async with first.open():
            await tell(first, a_run(stub.url))
            await stub.got(2)
            async with asyncio.timeout(10):
                while (await deliveries.pending(limit=9))[0].attempts < 2:
                    await asyncio.sleep(0.01)

        again = webhooks_of(client_of(guard), guard, deliveries, pauses=(0, 3600))
        async with again.open():
            await stub.got(3)
    assert await deliveries.pending(limit=9) == []
    assert stub.statuses == []


async def test_what_is_too_much_at_once_is_taken_up_later(
    deliveries: SqlDeliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadline.services.webhooks.WAITING", 4)
    async with receiver() as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]))
        webhooks = webhooks_of(client_of(guard), guard, deliveries)
        async with webhooks.open():
            for number in range(30):
                await tell(webhooks, replace(a_run(stub.url), run_id=f"run {number}"))
            await stub.got(30)
    told = [delivery.headers["webhook-id"] for delivery in stub.deliveries]
    assert sorted(set(told)) == sorted(f"run_run {number}" for number in range(30))
    assert await deliveries.pending(limit=99) == []


async def test_a_name_server_that_is_away_is_asked_again(deliveries: SqlDeliveries) -> None:
    async with receiver() as stub:
        guard = Guard(Egress.parse(["127.0.0.1"]), resolve=Away(1))
        http = client_of(guard)
        webhooks = webhooks_of(http, guard, deliveries)
        async with webhooks.open():
            await tell(webhooks, a_run(f"http://hook.example:{stub.port}/"))
            await stub.got()


async def test_a_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr("threadline.services.egress.LOOKUP_SECONDS", 0.01)
    with pytest.raises(Unresolved):
        await Guard(Egress(), resolve=hang).vet(httpx.URL("http://hook.example/"))


class Away:
    """A name server that fails so many times."""

    def __init__(self, failures: int) -> None:
        self._failures = failures

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if self._failures:
            self._failures -= 1
            raise OSError("away")
        return ["127.0.0.1"]


class NoStates:
    async def at(self, run: Run, ns: tuple[str, ...], checkpoint_id: str) -> bytes:
        return b"{}"


LOG = [Event(1, "end", (), {"error": None, "checkpoint_id": None}, 0.0)]


@pytest.fixture
async def deliveries(tmp_path: Path) -> AsyncIterator[SqlDeliveries]:
    async with open_database(tmp_path / "history.db") as database:
        yield SqlDeliveries(database)


def webhooks_of(
    http: httpx.AsyncClient, guard: Guard, deliveries: SqlDeliveries, pauses: Sequence[float] = (0, 0)
) -> Webhooks:
    return Webhooks(
        http=http, guard=guard, states=NoStates(), deliveries=deliveries, policy=HookPolicy(), pauses=pauses
    )


async def tell(webhooks: Webhooks, run: Run) -> None:
    delivery = await webhooks.prepare(run, LOG)
    assert delivery is not None
    await webhooks.keep(delivery)
    webhooks.send(delivery)


def a_run(url: str) -> Run:
    return Run("run", "thread", "agent", "run", "success", {"webhook": url}, datetime.now(UTC))
