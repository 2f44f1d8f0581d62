"""The conversation in a real browser: what a person at it says, sees and does."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.talk import ask, ended, last, say, texts_of, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORD = """
window.__states = [];
window.__texts = [];
new MutationObserver(() => {
  for (const chip of document.querySelectorAll('.turn:last-child .chip')) {
    const seen = `${chip.dataset.node} ${chip.dataset.state}`;
    if (!__states.includes(seen)) __states.push(seen);
  }
  const answers = document.querySelectorAll('.turn:last-child .answer');
  if (answers.length) __texts.push(answers[0].textContent);
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""
"""Keeps what the nodes and the last answer looked like, change by change."""

CUT = """
const untouched = window.fetch;
window.__cuts = 0;
window.fetch = async (input, options) => {
  const response = await untouched(input, options);
  if (__cuts >= CUTS.length || !/runs\\/.*stream/.test(String(input))) return response;
  const frames = CUTS[__cuts];
  const clean = __cuts % 2 === 0;
  __cuts += 1;
  let read = '';
  const breaking = new TransformStream({
    transform(chunk, out) {
      const before = read.length;
      read += new TextDecoder().decode(chunk);
      const end = read.split('event: ', frames + 1).join('event: ').length + 3;
      if (end >= read.length) { out.enqueue(chunk); return; }
      out.enqueue(chunk.slice(0, Math.max(0, end - before)));
      if (clean) out.terminate();
      else out.error(new TypeError('network error'));
    },
  });
  return new Response(response.body.pipeThrough(breaking), response);
};
"""
"""Breaks the first streams in the middle of a frame: one just ends, the next one fails."""


def cut(*frames: int) -> str:
    return f"const CUTS = {json.dumps(frames)};{CUT}"


def assert_grows(texts: list[str]) -> None:
    """Every text seen is the beginning of the last one: nothing was lost, nothing came twice."""
    plain = [" ".join(re.sub(r"[*`]", "", text).split()) for text in texts]
    assert [text for text in plain if not plain[-1].startswith(text)] == []


async def test_a_message_is_answered_step_by_step(open_page, base_url):
    page = await open_page(base_url, script=RECORD)
    await ask(page, "What is (15+27)*3?")

    await expect(last(page, ".said")).to_contain_text("What is (15+27)*3?")
    await expect(last(page, ".intent")).to_contain_text("Needs tools")
    await expect(last(page, ".intent")).to_contain_text(re.compile(r"\d+ % confident"))
    card = last(page, ".tool[data-tool=calculator]")
    await expect(card).to_contain_text("126")
    await expect(card).to_contain_text("(15+27)*3")
    await expect(card).to_contain_text("done")
    await expect(card).to_contain_text(re.compile(r"\d+ ms"))
    await card.locator("summary").first.click()
    await expect(card.locator(".tool-inside")).to_contain_text("expression")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(last(page, ".facts")).to_contain_text(re.compile(r"\d+ (ms|s).*first token.*[\d,]+ tokens"))
    nodes = ["analyze_intent", "execute_tools", "respond"]
    for node in nodes:
        chip = last(page, f".chip[data-node={node}]")
        await expect(chip).to_have_attribute("data-state", "done")
        await expect(chip.locator(".chip-ms")).to_contain_text("s")
    seen = await page.evaluate("__states")
    assert [state for state in seen if state.endswith("done")] == [f"{node} done" for node in nodes]
    assert "respond active" in seen
    await expect(page.locator("#announcer")).to_contain_text("126")


async def test_tokens_arrive_one_after_the_other(open_page, base_url):
    page = await open_page(base_url, script=RECORD)
    await ask(page, "count please")
    texts = list(dict.fromkeys(await page.evaluate("__texts")))
    assert len(texts) > 3
    assert_grows(texts)


async def test_a_korean_reader_gets_a_korean_page(open_page, base_url):
    page = await open_page(base_url, locale="ko-KR")
    await expect(page.locator("html")).to_have_attribute("lang", "ko")
    await expect(page.locator("#new-chat")).to_have_text("새 대화")
    await page.click(".prompt >> nth=0")
    await ended(page)
    await expect(last(page, ".said")).to_contain_text("(15+27)*3은 얼마야?")
    await expect(last(page, ".tool")).to_contain_text("계산기")
    await expect(last(page, ".intent")).to_contain_text("한국어")
    await expect(last(page, ".answer")).to_contain_text("126")

    await page.click("[data-language=en]")
    await expect(page.locator("#new-chat")).to_have_text("New chat")
    await expect(last(page, ".tool")).to_contain_text("Calculator")
    await expect(last(page, ".intent")).to_contain_text("Korean")
    await page.reload()
    await expect(page.locator("#new-chat")).to_have_text("New chat")


async def test_stop_cancels_the_run(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word2")
    await page.click("#stop")
    await ended(page)
    await expect(last(page, ".reply-foot")).to_contain_text("Stopped")
    await expect(last(page, ".chip[data-node=answer]")).to_have_attribute("data-state", "stopped")
    await expect(last(page, ".answer")).to_contain_text("word1")  # what it had said is kept
    thread = re.search(r"#s=([0-9a-f-]{36})", page.url)[1]
    runs = await page.evaluate(f"fetch('/threads/{thread}/runs').then((answer) => answer.json())")
    assert [run["status"] for run in runs] == ["interrupted"]
    await page.reload()
    await expect(last(page, ".reply-foot")).to_contain_text("Stopped")
    await expect(last(page, ".answer")).to_contain_text("word1")
    await ask(page, "something else")
    await expect(last(page, ".answer")).to_contain_text("You said something else")


async def test_enter_sends_but_not_while_a_syllable_is_composed(open_page, base_url):
    page = await open_page(base_url)
    await page.fill("#composer", "안녕하세")
    for event in ("isComposing: true", "keyCode: 229"):
        await page.evaluate(
            "document.getElementById('composer').dispatchEvent(new KeyboardEvent('keydown',"
            f" {{ key: 'Enter', bubbles: true, cancelable: true, {event} }}))"
        )
    await page.press("#composer", "Shift+Enter")
    await expect(page.locator("#composer")).to_have_value("안녕하세\n")
    await expect(page.locator(".turn")).to_have_count(0)
    await page.press("#composer", "Enter")
    await expect(page.locator(".said")).to_contain_text("안녕하세")
    await ended(page)


async def test_scrolling_follows_the_answer_and_yields_to_the_reader(open_page, scripted_url):
    page = await open_page(scripted_url)
    for n in range(3):
        await ask(page, f"count {n}\n\n\n\n\n\n\n\n")
    at_end = "scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 5"
    await until(page, at_end)
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word1")
    await page.hover("#scroller")
    await page.mouse.wheel(0, -500)
    await expect(page.locator("#jump")).to_be_visible()
    place = await page.evaluate("scroller.scrollTop")
    await expect(last(page, ".answer")).to_contain_text("word100")
    assert await page.evaluate("scroller.scrollTop") == place
    await page.click("#jump")
    await until(page, at_end)
    await page.click("#stop")
    await ended(page)


async def test_what_is_said_meanwhile_waits_its_turn(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word1")
    await say(page, "count one")
    await say(page, "not this")
    await expect(page.locator(".queue li")).to_have_count(2)
    await page.locator(".queue li").nth(1).get_by_role("button").click()
    thread = re.search(r"#s=([0-9a-f-]{36})", page.url)[1]
    await page.evaluate(  # somebody else ends the run: what waits is sent then
        f"""fetch('/threads/{thread}/runs').then((answer) => answer.json())
          .then(([run]) => fetch(`/threads/{thread}/runs/${{run.run_id}}/cancel`, {{ method: 'POST' }}))"""
    )
    await expect(texts_of(page)).to_have_text(["write slowly", "count one"])
    await ended(page)
    await expect(last(page, ".answer")).to_contain_text("159")
    await expect(page.locator(".queue")).to_have_count(0)


async def test_a_draft_is_kept_for_each_session(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What can you do?")
    await page.fill("#composer", "half a thought")
    await page.click("#new-chat")
    await expect(page.locator("#composer")).to_have_value("")
    await page.fill("#composer", "another")
    await page.click(".sessions a >> nth=0")
    await expect(page.locator("#composer")).to_have_value("half a thought")
    await page.reload()
    await expect(page.locator("#composer")).to_have_value("half a thought")


# Branches


async def test_a_message_is_edited_on_a_branch_of_its_own(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "one")
    await ask(page, "two")
    await edit(page, 1, "zwei")
    await expect(texts_of(page)).to_have_text(["one", "zwei"])
    await expect(last(page, ".answer")).to_contain_text("You said zwei")
    await expect(last(page, ".said-actions .switcher")).to_contain_text("2 / 2")

    await last(page, ".said-actions").get_by_role("button", name="Previous version").click()
    await expect(texts_of(page)).to_have_text(["one", "two"])
    await expect(last(page, ".answer")).to_contain_text("You said two")
    await ask(page, "three")  # goes on from the branch that is shown
    await expect(texts_of(page)).to_have_text(["one", "two", "three"])

    await edit(page, 0, "eins")  # the first message of all
    await expect(texts_of(page)).to_have_text(["eins"])
    await expect(page.locator(".turn >> nth=0").locator(".said-actions .switcher")).to_contain_text("2 / 2")
    await page.get_by_role("button", name="Previous version").click()
    await expect(texts_of(page)).to_have_text(["one", "two", "three"])
    link = page.url
    assert "&b=" in link
    other = await open_page(link)
    await expect(texts_of(other)).to_have_text(["one", "two", "three"])


async def edit(page: Page, turn: int, text: str) -> None:
    article = page.locator(f".turn >> nth={turn}")
    await article.hover()
    await article.locator(".edit").click()
    await page.fill(".edit-form textarea", text)
    await page.get_by_role("button", name="Send on a new branch").click()
    await expect(texts_of(page).last).to_have_text(text)
    await ended(page)
    await expect(last(page, ".switcher").first).to_be_visible()


async def test_an_answer_is_given_again(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "one")
    await ask(page, "two")
    await page.locator(".turn >> nth=0").locator(".regenerate").click()
    await expect(texts_of(page)).to_have_text(["one"])
    await ended(page)
    switcher = last(page, ".reply-foot .switcher")
    await expect(switcher).to_contain_text("2 / 2")
    await switcher.get_by_role("button", name="Previous version").click()
    await expect(texts_of(page)).to_have_text(["one", "two"])
    await expect(page.locator(".turn >> nth=0").locator(".reply-foot .switcher")).to_contain_text("1 / 2")


# Sessions


async def test_an_old_session_is_opened_from_the_list_and_by_its_link(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    link = page.url
    assert re.search(r"#s=[0-9a-f-]{36}", link)
    await page.click("#new-chat")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator(".prompt")).to_have_count(4)

    await page.click(".sessions a >> nth=0")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(last(page, ".tool")).to_contain_text("126")
    await expect(last(page, ".chip")).to_have_count(3)
    await expect(last(page, ".facts")).to_contain_text("tokens")
    await expect(page.locator(".sessions a[aria-current]")).to_have_count(1)
    await ask(page, "What can you do?")
    await expect(page.locator(".turn")).to_have_count(2)

    other = await open_page(link)
    await expect(other.locator(".turn")).to_have_count(2)
    await expect(other.locator(".turn >> nth=0")).to_contain_text("126")
    await page.go_back()
    await expect(page.locator(".prompt")).to_have_count(4)


async def test_sessions_are_found_renamed_and_deleted(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "zebra first")
    await page.click("#new-chat")
    await ask(page, "yak second")
    await page.fill("#search", "ZEBRA")
    row = page.locator(".sessions li")
    await expect(row).to_have_count(1)
    await row.hover()
    await row.locator(".rename").click()
    await page.fill(".rename-form input", "얼룩말 이야기")
    await page.press(".rename-form input", "Enter")
    await page.fill("#search", "얼룩말")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("얼룩말 이야기")
    await row.hover()
    await row.locator(".delete").click()
    await expect(page.locator("dialog")).to_contain_text("얼룩말 이야기")
    await page.get_by_role("button", name="Cancel").click()
    await expect(row).to_have_count(1)
    await row.hover()
    await row.locator(".delete").click()
    await page.click("dialog .button.danger")
    await expect(row).to_have_count(0)
    await page.fill("#search", "")
    await expect(row.filter(has_text="yak second")).to_have_count(1)
    await expect(page.locator(".turn")).to_have_count(1)  # the one that is open was not the one deleted


async def test_the_list_of_sessions_goes_on(open_page, scripted_url):
    page = await open_page(scripted_url)
    await page.evaluate(
        """() => Promise.all(Array.from({ length: 35 }, (_, n) => fetch('/threads', { method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify({ metadata: { title: `session ${n}` } }) })))"""
    )
    await page.reload()
    await expect(page.locator(".sessions li")).to_have_count(30)
    await page.click("#more-sessions")
    await until(page, "document.querySelectorAll('.sessions li').length > 34")


async def test_a_run_left_behind_is_taken_up_again(open_page, scripted_url):
    page = await open_page(scripted_url)
    await say(page, "write slowly, please")
    await expect(last(page, ".answer")).to_contain_text("word3")
    await page.click("#new-chat")
    await expect(page.locator("#stop")).to_have_count(0)
    await page.locator(".sessions a", has_text="write slowly, please").click()
    await expect(last(page, ".answer")).to_contain_text("word6")
    await expect(page.locator(".turn")).to_have_count(1)
    await page.reload()
    await expect(last(page, ".answer")).to_contain_text("word9")
    await expect(page.locator(".turn")).to_have_count(1)
    await page.click("#stop")
    await ended(page)


async def test_a_conversation_is_saved_as_a_file(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.click("#more")
    async with page.expect_download() as markdown:
        await page.get_by_role("button", name="Save as Markdown").click()
    text = (await (await markdown.value).path()).read_text()
    assert "## You\n\nWhat is (15+27)*3?" in text
    assert "**calculator**" in text
    assert "126" in text
    await page.click("#more")
    async with page.expect_download() as saved:
        await page.get_by_role("button", name="Save as JSON").click()
    whole = json.loads((await (await saved.value).path()).read_text())
    assert [message["type"] for message in whole["values"]["messages"]] == ["human", "ai", "tool", "ai"]


# When things go wrong


async def test_a_dropped_stream_goes_on_where_it_broke(open_page, base_url):
    page = await open_page(base_url, script=cut(12, 5) + RECORD)
    resumed: list[str] = []
    page.on("request", lambda request: resumed.append(request.headers.get("last-event-id", "")))
    await ask(page, "count please")
    texts = list(dict.fromkeys(await page.evaluate("__texts")))
    assert_grows(texts)
    ids = [tuple(map(int, one.split("-"))) for one in resumed if one]
    assert len(ids) == 2
    assert (0, 0) < ids[0] < ids[1]
    await expect(page.locator(".connection")).to_have_count(0)
    await expect(page.locator(".error")).to_have_count(0)


async def test_an_error_names_the_node_and_can_be_retried(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "please fail once")
    error = last(page, ".error")
    await expect(error).to_contain_text("answer failed")
    await expect(error).not_to_contain_text("hunter2")
    await expect(last(page, ".chip[data-node=answer]")).to_have_attribute("data-state", "failed")
    await page.reload()  # and is told again when the session is opened later
    await expect(error).to_contain_text("answer failed")
    await expect(page.locator(".sessions li[data-status=error]")).not_to_have_count(0)
    await error.get_by_role("button", name="Retry").click()
    await expect(page.locator(".error")).to_have_count(0)
    await ended(page)
    await expect(last(page, ".answer")).to_contain_text("You said please fail once")
    await expect(last(page, ".answer")).not_to_contain_text("This will not")
    await expect(page.locator(".turn")).to_have_count(1)


async def test_a_message_that_was_not_taken_can_be_sent_again(open_page, base_url):
    page = await open_page(base_url)
    await expect(page.locator(".prompt")).to_have_count(4)
    await page.route("**/runs/stream", lambda route: route.abort())
    await say(page, "What can you do?")
    await expect(page.locator(".error")).to_contain_text("The service cannot be reached.")
    await page.unroute("**/runs/stream")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator(".error")).to_have_count(0)
    await ended(page)
    await expect(texts_of(page)).to_have_text(["What can you do?"])
    page.watch.allow("net::ERR_FAILED")


@pytest.mark.parametrize(("status", "words"), [(429, "Too many requests"), (500, "is away"), (409, "busy")])
async def test_a_refusal_says_what_to_do(open_page, base_url, status, words):
    page = await open_page(base_url)
    await expect(page.locator(".prompt")).to_have_count(4)
    answer = {"status": status, "headers": {"retry-after": "7"}, "body": "<html>a proxy's page</html>"}
    await page.route("**/runs/stream", lambda route: route.fulfill(**answer))
    await say(page, "hello")
    await expect(page.locator(".error")).to_contain_text(words)
    await expect(page.locator(".error")).to_contain_text("Try again in 7 s.")
    page.watch.allow(f"status of {status}")


async def test_a_service_that_is_away_is_told_and_found_again(open_page, base_url):
    page = await open_page(base_url)
    await expect(page.locator(".prompt")).to_have_count(4)
    await page.route("**/info", lambda route: route.abort())
    await page.reload()
    await expect(page.locator(".empty")).to_contain_text("No answer from 127.0.0.1")
    await expect(page.locator(".empty")).to_contain_text("threadline up")
    await page.unroute("**/info")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator(".prompt")).to_have_count(4)
    page.watch.allow("net::ERR_FAILED")


async def test_what_the_model_writes_never_runs(open_page, scripted_url):
    page = await open_page(scripted_url)
    await ask(page, "markup <img src=x onerror=\"window.__ran='said'\">")
    answer = last(page, ".answer")
    await expect(answer).to_contain_text("<script>window.__ran = 'script'</script>")
    await expect(answer.locator("script, img, b, i, iframe")).to_have_count(0)
    await expect(answer.locator("pre code").first).to_contain_text("<script>")
    await expect(answer.locator("strong")).to_have_text("bold <b>text</b>")
    links = await page.eval_on_selector_all(
        ".answer a[href]", "nodes => nodes.map(node => [node.getAttribute('href'), node.rel, node.target])"
    )
    safe = ("noopener noreferrer", "_blank")
    assert links == [["https://example.com/a?b=1", *safe], ["https://example.com/p.png", *safe]]
    assert await page.evaluate("window.__ran") is None
    await expect(answer.locator("table")).to_contain_text("2")
    await expect(answer.locator(".katex")).to_have_count(3)
    await expect(answer).to_contain_text("It costs $5, or $10 today;")
    await expect(answer.locator(".hljs-built_in")).to_have_text("print")
    await answer.locator(".code", has_text="print").get_by_role("button", name="Copy").click()
    await expect(page.locator("#toast")).to_contain_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == "print('hi')"


@pytest.mark.parametrize("text", ["long", "right", "huge"])
async def test_texts_and_states_of_any_size_leave_the_page_usable(open_page, scripted_url, text):
    page = await open_page(scripted_url)
    await ask(page, text)
    await expect(last(page, ".answer")).not_to_be_empty()
    await page.click("#toggle-timeline")
    await page.click("[data-view=state]")
    await expect(page.locator(".whole-state")).to_contain_text("messages")
    await page.click("[data-view=changes]")
    await expect(page.locator(".changes")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await ask(page, "count")
    await expect(last(page, ".answer")).to_contain_text("159")


FRAMES = 23
"""About as many as the stream of a question to the calculator has."""


@pytest.mark.parametrize("after", [1, 3, 6, 9, 12, 15, 18, 21])
async def test_a_stream_cut_anywhere_ends_in_the_same_page(open_page, base_url, after):
    page = await open_page(base_url, script=cut(after))
    await ask(page, "What is (15+27)*3?")
    await seen_whole(page)


@pytest.mark.long
@pytest.mark.parametrize("after", range(FRAMES))
async def test_a_stream_cut_after_each_frame_ends_in_the_same_page(open_page, base_url, after):
    page = await open_page(base_url, script=cut(after))
    await ask(page, "What is (15+27)*3?")
    await seen_whole(page)


async def seen_whole(page: Page) -> None:
    assert await page.evaluate("__cuts") == 1
    await expect(last(page, ".answer")).to_have_text("(15 + 27) × 3 = 126")
    await expect(last(page, ".tool")).to_have_count(1)
    await expect(last(page, ".tool")).to_have_attribute("data-state", "done")
    await expect(last(page, ".chip[data-state=done]")).to_have_count(3)
    await expect(page.locator(".error, .connection")).to_have_count(0)
