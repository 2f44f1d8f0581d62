"""Crons by the Python client."""

from __future__ import annotations

from tests.compat.sdk import Sdk
from tests.compat.talks import saying

JANUARY = "0 0 1 1 *"


async def test_crons(sdk: Sdk) -> None:
    cron = await sdk.crons.create("agent", schedule=JANUARY, input=saying("hi"), metadata={"team": "a"})
    thread_id = (await sdk.threads.create())["thread_id"]
    bound = await sdk.crons.create_for_thread(thread_id, "agent", schedule=JANUARY, input=saying("hi"))
    assert bound["thread_id"] == thread_id
    assert [one["cron_id"] for one in await sdk.crons.search(thread_id=thread_id)] == [bound["cron_id"]]
    assert await sdk.crons.count() == 2
    changed = await sdk.crons.update(cron["cron_id"], schedule="0 0 2 1 *", enabled=False)
    assert (changed["schedule"], changed["enabled"]) == ("0 0 2 1 *", False)
    await sdk.crons.delete(cron["cron_id"])
    assert await sdk.crons.count() == 1
    assert sdk.called["crons"] == sdk.methods("crons")
