"""Looking inside in a real browser: graph, timeline, events, approvals, assistants."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.talk import ask, ended, last, say, texts_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def timeline(page: Page) -> None:
    await page.click("#toggle-timeline")
    await expect(page.locator(".detail .switch")).to_be_visible()


def node(page: Page, name: str):
    return page.locator(f"[data-graph-node='{name}']")


# The graph


async def test_the_graph_is_lit_counted_and_opened(open_page, base_url):
    page = await open_page(base_url)
    await expect(node(page, "Respond")).to_have_attribute("data-state", "waiting")
    await ask(page, "What is (15+27)*3?")
    for name in ("Analyze intent", "Run tools", "Respond"):
        await expect(node(page, name)).to_have_attribute("data-state", "done")
        await expect(node(page, name)).to_contain_text(re.compile(r"\d+ (ms|s)"))
    await expect(page.locator(".react-flow__edge.conditional")).to_have_count(4)
    await node(page, "Run tools").click()
    await expect(page.locator(".node-detail")).to_contain_text("Run tools")
    await page.click(".node-states .button")
    await expect(page.locator("#panel")).to_have_attribute("data-panel", "timeline")
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")

    await page.click("#toggle-graph")
    await page.get_by_role("button", name="As it ran").click()
    await expect(page.locator("[data-graph-node]")).to_have_count(2)  # up to the step that is looked at
    await page.locator(".past-note").get_by_role("button").click()
    await expect(page.locator("[data-graph-node]")).to_have_count(3)


async def test_the_active_node_is_lit(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "write slowly")
    await expect(node(page, "answer")).to_have_attribute("data-state", "active")
    await expect(node(page, "plan")).to_have_attribute("data-state", "done")
    await page.click("#stop")
    await ended(page)
    await expect(node(page, "answer")).to_have_attribute("data-state", "stopped")


async def test_a_list_takes_the_place_of_the_picture(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.click(".graph-list-toggle")
    rows = page.locator(".node-list li")
    await expect(rows).to_have_count(3)
    await expect(rows.nth(0)).to_contain_text("→ Run tools, Respond")
    await rows.nth(2).get_by_role("button").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".node-detail h3")).to_have_text("Respond")


async def test_subgraphs_are_drawn_and_lit(open_page, scripted_url):
    page = await open_page(scripted_url)
    await page.select_option(".assistant-pick select", label="parent")
    await expect(page.locator(".group-box")).to_contain_text("child")
    await ask(page, "hello there")
    await expect(node(page, "answer")).to_have_attribute("data-state", "done")
    await expect(last(page, ".chip").filter(has_text="child › answer")).to_have_count(1)
    await expect(last(page, ".answer")).to_have_count(1)
    await page.get_by_label("Subgraphs").uncheck()
    await expect(node(page, "child")).to_have_attribute("data-state", "done")


async def test_a_run_stops_at_a_breakpoint_and_goes_on(open_page, scripted_url):
    page = await open_page(scripted_url)
    await node(page, "answer").click()
    await page.get_by_label("Stop before").check()
    await expect(node(page, "answer").locator(".brake.before")).to_be_visible()
    await say(page, "hello")
    await expect(page.locator(".paused")).to_contain_text("Stopped before answer")
    await expect(node(page, "answer")).to_have_attribute("data-state", "next")
    await page.get_by_label("Stop before").uncheck()
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".paused")).to_have_count(0)
    await ended(page)
    await expect(last(page, ".answer")).to_contain_text("You said hello")


async def test_a_graph_that_is_no_conversation_takes_json(open_page, scripted_url):
    page = await open_page(scripted_url)
    await page.select_option(".assistant-pick select", label="plain")
    await expect(page.locator("#composer")).to_have_attribute("placeholder", re.compile("JSON"))
    await page.fill("#composer", '{"numbers": [1, 2, 4]')
    await page.press("#composer", "Control+Enter")
    await expect(page.locator("#toast")).to_contain_text("not JSON")
    await page.fill("#composer", '{"numbers": [1, 2, 4]}')
    await page.press("#composer", "Control+Enter")
    await expect(page.locator(".chip[data-node=add]")).to_have_attribute("data-state", "done")
    await timeline(page)
    await page.click("[data-view=state]")
    await expect(page.locator(".whole-state")).to_contain_text("total: 7")


# The timeline


async def test_checkpoints_are_stepped_through(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await timeline(page)
    await expect(page.locator(".detail-title")).to_contain_text("Respond")
    await expect(page.locator(".detail")).to_contain_text("End of the turn")
    await expect(page.locator(".state-messages li")).to_have_count(4)
    await expect(page.get_by_role("button", name="Run again from here")).to_be_disabled()

    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")
    await expect(page.locator(".state-messages li")).to_have_count(3)
    await expect(page.locator(".past-note")).to_contain_text("step 2")
    await expect(page.locator(".turn .answer")).to_have_count(0)  # the conversation as it stood then
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".state-messages li")).to_have_count(2)
    await expect(page.locator(".detail")).to_contain_text("calls Calculator")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".state-messages li")).to_have_count(3)

    await page.click("[data-view=changes]")
    await expect(page.locator(".changes [data-change=added]")).to_contain_text("messages[2]")
    await page.click("[data-view=state]")
    await page.locator(".whole-state").get_by_text("messages").click()
    await expect(page.locator(".whole-state")).to_contain_text("3 items")
    link = page.url
    assert "&c=" in link
    chosen = await page.locator(".detail").get_attribute("data-checkpoint")
    other = await open_page(link)
    await expect(other.locator(".detail")).to_have_attribute("data-checkpoint", chosen or "")

    await page.keyboard.press("Home")
    await expect(page.locator(".detail-title")).to_contain_text("Input")
    await page.keyboard.press("Escape")
    await expect(page.locator("#panel")).to_have_count(0)
    await expect(page.locator(".turn .answer")).to_contain_text("126")


async def test_a_recording_is_played_without_calling_anything(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await ask(page, "What can you do?")
    await timeline(page)
    await page.keyboard.press("Home")
    await expect(page.locator(".detail-title")).to_contain_text("Input")
    changed: list[str] = []
    page.on("request", lambda request: request.method == "POST" and changed.append(request.url))
    await page.get_by_role("button", name="Replay from here").click()
    await expect(page.locator("#recording-note")).to_contain_text("No model and no tool is called")
    await expect(page.locator("#composer")).to_have_count(0)
    await page.get_by_role("button", name="Pause").click()
    await page.get_by_role("button", name="Go on").click()
    await page.get_by_label("Speed").select_option("max")
    await expect(page.locator("[data-over]")).to_be_visible()
    assert changed == []
    first, second = page.locator(".turn >> nth=0"), page.locator(".turn >> nth=1")
    await expect(first.locator(".said")).to_contain_text("What is (15+27)*3?")
    await expect(first.locator(".tool")).to_contain_text("126")
    await expect(first.locator(".answer")).to_contain_text("126")
    await expect(second.locator(".said")).to_contain_text("What can you do?")
    await expect(second.locator(".answer")).not_to_be_empty()
    await page.click("#leave-recording")
    await expect(page.locator(".turn")).to_have_count(2)
    await expect(page.locator("#composer")).to_be_enabled()


async def test_a_recording_begins_where_it_is_told_to(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await timeline(page)
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")
    await page.get_by_role("button", name="Replay from here").click()
    await page.get_by_label("Speed").select_option("max")
    await expect(page.locator("[data-over]")).to_be_visible()
    await expect(page.locator(".turn")).to_have_count(1)
    await expect(last(page, ".tool")).to_contain_text("126")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(last(page, ".chip")).to_have_count(1)  # the rest had run before


async def test_a_run_is_done_again_from_a_checkpoint(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await timeline(page)
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")
    await page.get_by_role("button", name="Run again from here").click()
    await expect(page.locator(".branches")).to_contain_text("2 branches")
    await ended(page)
    await expect(page.locator(".turn")).to_have_count(1)
    await expect(last(page, ".tool")).to_contain_text("126")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(last(page, ".reply-foot .switcher")).to_contain_text("2 / 2")


async def test_a_state_is_edited_and_forked_and_the_branches_are_compared(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await timeline(page)
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".detail-title")).to_contain_text("Message received")
    await page.get_by_role("button", name="Fork with changes").click()
    await page.get_by_label("Last message").fill("What is 2+2?")
    await page.get_by_role("button", name="Fork and go on").click()
    await expect(texts_of(page)).to_have_text(["What is 2+2?"])
    await ended(page)
    await expect(last(page, ".answer")).to_contain_text("4")

    await page.click(".branches summary")
    await page.locator(".branches").get_by_role("button", name="Compare with this").click()
    rows = page.locator(".compare-rows > li")
    await expect(page.locator(".compare-mark")).to_have_text("First difference")
    await expect(page.locator(".first-difference")).to_have_count(1)
    await expect(rows.filter(has_text="126")).not_to_have_count(0)
    await expect(page.locator(".compare")).to_contain_text("the same up to step 0")
    await page.keyboard.press("Escape")
    await page.locator(".branches li", has_text="Branch 1").locator(".name-branch").click()
    await page.locator(".branches input").fill("처음 그대로")
    await page.locator(".branches input").press("Enter")
    named = page.locator(".branches li", has_text="처음 그대로")
    await named.locator("button").first.click()
    await expect(texts_of(page)).to_have_text(["What is (15+27)*3?"])
    await page.locator(".branches li", has_text="Branch 2").locator(".promote").click()
    await expect(page.locator(".branches li", has_text="Branch 2")).to_contain_text("Main line")
    await expect(texts_of(page)).to_have_text(["What is 2+2?"])


async def test_a_whole_state_is_edited_as_json(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "hello")
    await timeline(page)
    await page.get_by_role("button", name="Fork with changes").click()
    await page.get_by_label("The whole state as JSON").check()
    area = page.get_by_label("Whole state", exact=True)
    state = json.loads(await area.input_value())
    await area.fill("{")
    await page.get_by_role("button", name="Fork and go on").click()
    await expect(page.locator(".fork-form .wrong")).to_contain_text("not JSON")
    await area.fill(json.dumps({**state, "note": "written by hand"}))
    await page.get_by_role("button", name="Fork and go on").click()
    await expect(page.locator(".detail-title")).to_contain_text("Edited state")
    await page.click("[data-view=changes]")
    await expect(page.locator(".changes")).to_contain_text("written by hand")


async def test_a_checkpoint_is_pinned(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What can you do?")
    await timeline(page)
    await page.get_by_role("button", name="Pin", exact=True).click()
    await expect(page.get_by_role("button", name="Unpin")).to_be_visible()
    await page.get_by_role("button", name="Unpin").click()
    await expect(page.get_by_role("button", name="Pin", exact=True)).to_be_visible()


async def test_what_is_sent_from_the_past_begins_a_branch(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "one")
    await ask(page, "two")
    await page.locator(".turn >> nth=0").locator(".to-checkpoint").click()
    await expect(page.locator(".past-note")).to_be_visible()
    await expect(texts_of(page)).to_have_text(["one"])
    await say(page, "zwei")
    await expect(texts_of(page)).to_have_text(["one", "zwei"])
    await ended(page)
    await expect(last(page, ".said-actions .switcher")).to_contain_text("2 / 2")


# Events


async def test_raw_events_are_filtered_opened_and_copied_as_curl(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.keyboard.press("Escape")
    await page.click("#title")
    await page.click("#toggle-events")
    await expect(page.locator(".event").last).to_contain_text("tasks")
    await page.get_by_label("Filter").fill("intent")
    await page.locator(".event", has_text="custom").first.click()
    await expect(page.locator(".event-detail")).to_contain_text("confidence")
    await page.click("#copy-curl")
    await expect(page.locator("#toast")).to_contain_text("Copied")
    command = await page.evaluate("navigator.clipboard.readText()")
    assert command.startswith(f"curl -N '{base_url}/threads/")
    assert "Last-Event-ID: -1" in command


# A person is asked


async def test_an_action_is_approved(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "approve a mail")
    card = last(page, ".approval")
    await expect(card).to_contain_text("send_mail")
    await expect(card).to_contain_text("kim@example.com")
    await expect(page.locator(".sessions a[aria-current]")).to_contain_text("Waiting for your answer")
    await expect(page.locator("#open-inbox .badge")).to_be_visible()
    await page.reload()  # the question is still there
    await card.get_by_role("button", name="Approve").click()
    await expect(last(page, ".answer")).to_contain_text("approve: kim@example.com")
    await ended(page)
    await expect(page.locator(".approval")).to_have_count(0)


async def test_an_action_is_edited_or_rejected(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "approve a mail")
    card = last(page, ".approval")
    await card.get_by_role("button", name="Edit").click()
    await card.locator("textarea").fill('{"to": ')
    await card.get_by_role("button", name="Run with these").click()
    await expect(card.locator(".wrong")).to_contain_text("not JSON")
    await card.locator("textarea").fill('{"to": "lee@example.com"}')
    await card.get_by_role("button", name="Run with these").click()
    await expect(last(page, ".answer")).to_contain_text("edit: lee@example.com")
    await ended(page)

    await say(page, "approve another")
    await card.get_by_role("button", name="Reject").click()
    await card.locator("textarea").fill("안 돼요")
    await card.get_by_role("button", name="Reject").click()
    await expect(last(page, ".answer")).to_contain_text("reject: 안 돼요")
    await ended(page)


async def test_any_other_question_is_answered_from_the_inbox(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "ask me about the inbox")
    await expect(last(page, ".question")).to_be_visible()
    await page.click("#new-chat")
    await page.click("#open-inbox")
    row = page.locator(".inbox li", has_text="ask me about the inbox")
    await expect(row).to_contain_text("Which city do you mean?")
    await row.get_by_role("button").click()
    question = last(page, ".question")
    await expect(question.locator(".question-text")).to_have_text("Which city do you mean?")
    await expect(last(page, ".chip[data-node=answer]")).to_have_attribute("data-state", "asking")
    await question.locator("textarea").fill('{"city": "부산"}')
    await question.get_by_role("button", name="Answer and go on").click()
    await expect(last(page, ".answer")).to_contain_text("부산")
    await ended(page)

    await say(page, "ask me again")
    await question.get_by_role("button", name="Seoul").click()
    await expect(last(page, ".answer")).to_contain_text("You said Seoul")
    await ended(page)


# Assistants


async def test_an_assistant_is_made_changed_and_used(open_page, scripted_url):
    page = await open_page(scripted_url)
    await page.click("#open-assistants")
    await page.click("#new-assistant")
    await page.get_by_label("Name", exact=True).fill("Loud")
    await page.get_by_label("Shout").check()
    await page.get_by_label("Words").fill("7")
    await page.get_by_label("Tone").select_option(label="warm")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#toast")).to_contain_text("version 1")
    await page.get_by_label("As JSON").check()
    raw = json.loads(await page.get_by_label("Settings").input_value())
    assert raw == {"shout": True, "words": 7, "tone": "warm"}
    await page.get_by_label("Settings").fill('{"shout": false}')
    await page.get_by_role("button", name="Save as a new version").click()
    await expect(page.locator(".versions li")).to_have_count(2)
    await page.locator(".versions").get_by_role("button", name="Activate").click()
    await expect(page.locator(".versions li", has_text="Version 1")).to_contain_text("active")
    await page.get_by_role("button", name="Use it").click()
    await page.keyboard.press("Escape")
    await ask(page, "hello")
    await expect(last(page, ".answer")).to_contain_text("YOU SAID HELLO")
