"""The page in a real browser: what a person at it sees and does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import SHOTS
from tests.stubs.chat_service import ATTEMPT_SPAN, STATIC, create_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORD = """
window.__states = [];
window.__texts = [];
new MutationObserver((changes) => {
  for (const { target, attributeName } of changes) {
    const { node, state } = target.dataset ?? {};
    if (attributeName === 'data-state' && node) __states.push(`${node} ${state}`);
  }
  const answers = document.querySelectorAll('.turn:last-child .answer');
  if (answers.length) __texts.push(answers[0].textContent);
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ['data-state'] });
"""
"""Keeps what the nodes and the last answer looked like, change by change."""

CUT = """
const untouched = window.fetch;
let cut = 0;
window.fetch = async (input, options) => {
  const response = await untouched(input, options);
  const path = String(input);
  if (cut >= 2 || !(path === '/chat' || path.endsWith('/events'))) return response;
  const clean = cut === 0;
  cut += 1;
  let read = '';
  const breaking = new TransformStream({
    transform(chunk, out) {
      const before = read.length;
      read += new TextDecoder().decode(chunk);
      const end = read.split('event: token', 6).join('event: token').length;
      out.enqueue(chunk.slice(0, end - before));
      if (end === read.length) return;
      if (clean) out.terminate();
      else out.error(new TypeError('network error'));
    },
  });
  return new Response(response.body.pipeThrough(breaking), response);
};
"""
"""Breaks the first two streams in the middle of the sixth token: one just ends, the other fails."""


async def say(page: Page, text: str) -> None:
    await page.fill("#composer", text)
    await page.press("#composer", "Enter")


async def ended(page: Page) -> None:
    await expect(page.locator("#stop")).to_be_hidden()
    await expect(page.locator(".answer[aria-busy]")).to_have_count(0)


async def ask(page: Page, text: str) -> None:
    await say(page, text)
    await ended(page)


async def until(page: Page, condition: str) -> None:
    await page.evaluate(
        f"new Promise((met) => {{ const look = () => ({condition} ? met() : requestAnimationFrame(look)); look(); }})"
    )


def last(page: Page, inside: str) -> Locator:
    return page.locator(f".turn:last-child {inside}")


# The conversation


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
    await expect(last(page, ".answer")).to_contain_text("126")
    for node in ("analyze_intent", "execute_tools", "respond"):
        await expect(page.locator(f"[data-node={node}]")).to_have_attribute("data-state", "done")
        await expect(page.locator(f"[data-node={node}] .node-ms")).to_contain_text("s")
    states = await page.evaluate("__states")
    lit = [state for state in dict.fromkeys(states) if not state.endswith("waiting")]
    assert lit == [
        f"{node} {state}" for node in ("analyze_intent", "execute_tools", "respond") for state in ("active", "done")
    ]


async def test_tokens_arrive_one_after_the_other(open_page, base_url):
    page = await open_page(base_url, script=RECORD)
    await ask(page, "count please")
    texts = list(dict.fromkeys(await page.evaluate("__texts")))
    assert len(texts) > 3
    assert_grows(texts)


def assert_grows(texts: list[str]) -> None:
    """Every text seen is the beginning of the last one: nothing was lost, nothing came twice."""
    plain = [re.sub(r"[*`]", "", text) for text in texts]
    assert [text for text in plain if not plain[-1].startswith(text)] == []


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


async def test_stop_cancels_the_run(open_page, serve):
    app = create_service()
    page = await open_page(serve(app))
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word1")
    await page.click("#stop")
    await ended(page)
    await expect(last(page, ".reply-foot")).to_contain_text("Stopped")
    await expect(page.locator("[data-node=respond]")).to_have_attribute("data-state", "stopped")
    assert [run.cancelled for run in app.state.runs.values()] == [True]
    await ask(page, "What is (15+27)*3?")
    await expect(last(page, ".answer")).to_contain_text("126")


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


async def test_scrolling_follows_the_answer_and_yields_to_the_reader(open_page, stub_url):
    page = await open_page(stub_url)
    for _ in range(3):
        await ask(page, "What can you do?")
    at_end = "scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 5"
    assert await page.evaluate(at_end)
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word1")
    await page.hover("#scroller")
    await page.mouse.wheel(0, -600)
    await expect(page.locator("#jump")).to_be_visible()
    place = await page.evaluate("scroller.scrollTop")
    await expect(last(page, ".answer")).to_contain_text("word15")
    assert await page.evaluate("scroller.scrollTop") == place
    await page.click("#jump")
    await until(page, at_end)
    await page.click("#stop")
    await ended(page)


# Sessions


async def test_an_old_session_is_opened_from_the_list_and_by_its_link(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    link = page.url
    assert re.search(r"#s=[0-9a-f-]{36}$", link)
    await page.click("#new-chat")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator(".prompt")).to_have_count(4)

    await page.click(".sessions a >> nth=0")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(last(page, ".tool")).to_contain_text("126")
    await expect(page.locator(".sessions a[aria-current]")).to_have_count(1)
    await ask(page, "What can you do?")
    await expect(page.locator(".turn")).to_have_count(2)

    other = await open_page(link)
    await expect(other.locator(".turn")).to_have_count(2)
    await expect(other.locator(".turn >> nth=0")).to_contain_text("126")
    await page.go_back()
    await expect(page.locator(".prompt")).to_have_count(4)


async def test_a_session_is_deleted_after_a_question(open_page, serve):
    app = create_service()
    page = await open_page(serve(app))
    await ask(page, "first of all")
    await page.hover(".sessions li")
    await page.click(".sessions .delete")
    await expect(page.locator("dialog")).to_contain_text("first of all")
    await page.click("dialog .button >> nth=0")
    assert len(app.state.sessions) == 1
    await page.click(".sessions .delete")
    await page.click("dialog .button.danger")
    await expect(page.locator(".sessions li")).to_have_count(0)
    await expect(page.locator(".turn")).to_have_count(0)
    assert app.state.sessions == {}


async def test_the_list_of_sessions_goes_on(open_page, serve):
    app = create_service(pace=0)
    page = await open_page(serve(app))
    await page.evaluate(
        """async () => {
          for (let n = 0; n < 35; n += 1) {
            const response = await fetch('/chat', { method: 'POST', headers: { 'Content-Type': 'application/json' },
              body: JSON.stringify({ message: `session ${n}` }) });
            await response.text();
          }
        }"""
    )
    await page.reload()
    await expect(page.locator(".sessions li")).to_have_count(30)
    await expect(page.locator(".sessions li >> nth=0")).to_contain_text("session 34")
    await page.click("#more-sessions")
    await expect(page.locator(".sessions li")).to_have_count(35)
    await expect(page.locator(".sessions li >> nth=34")).to_contain_text("session 0")
    await expect(page.locator("#more-sessions")).to_be_hidden()


async def test_a_run_left_behind_is_taken_up_again(open_page, stub_url):
    page = await open_page(stub_url)
    await say(page, "write slowly")
    await expect(last(page, ".answer")).to_contain_text("word3")
    await page.click("#new-chat")
    await expect(page.locator("#stop")).to_be_hidden()
    await page.click(".sessions a >> nth=0")
    await expect(last(page, ".answer")).to_contain_text("word6")
    await expect(page.locator(".turn")).to_have_count(1)
    await page.reload()
    await expect(last(page, ".answer")).to_contain_text("word9")
    await expect(page.locator(".turn")).to_have_count(1)
    await page.click("#stop")
    await ended(page)


# Checkpoints


async def test_checkpoints_are_stepped_through(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.click("#toggle-checkpoints")
    await expect(page.locator(".detail")).to_contain_text("Respond")
    await expect(page.locator(".detail")).to_contain_text("End of the turn")
    await expect(page.locator(".state-messages li")).to_have_count(4)
    await expect(page.get_by_role("button", name="Run again from here")).to_be_disabled()

    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")
    await expect(page.locator(".state-messages li")).to_have_count(3)
    await expect(page.locator("[data-node=execute_tools]")).to_have_attribute("data-state", "done")
    await expect(page.locator("[data-node=respond]")).to_have_attribute("data-state", "next")
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".state-messages li")).to_have_count(2)
    await expect(page.locator(".detail")).to_contain_text("calls Calculator")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".state-messages li")).to_have_count(3)

    await page.click(".whole-state > summary")
    await page.locator(".whole-state").get_by_text("messages").click()
    await expect(page.locator(".whole-state")).to_contain_text("3 items")
    link = page.url
    assert "&c=" in link
    chosen = await page.locator(".detail").get_attribute("data-checkpoint")
    other = await open_page(link)
    await expect(other.locator(".detail")).to_have_attribute("data-checkpoint", chosen or "")

    await page.keyboard.press("Escape")
    await expect(page.locator("#checkpoints")).to_be_hidden()


async def test_a_recording_is_played_without_calling_anything(open_page, serve):
    app = create_service()
    page = await open_page(serve(app))
    await ask(page, "What is (15+27)*3?")
    await ask(page, "What can you do?")
    await page.click("#toggle-checkpoints")
    await page.click(".moment >> nth=-1")
    await expect(page.locator(".detail-title")).to_contain_text("Input")
    before = len(app.state.runs)
    await page.get_by_role("button", name="Replay from here").click()
    await expect(page.locator("#recording-note")).to_be_visible()
    await expect(page.locator("#composer")).to_be_hidden()
    await ended(page)
    assert len(app.state.runs) == before
    first, second = page.locator(".turn >> nth=0"), page.locator(".turn >> nth=1")
    await expect(first.locator(".said")).to_contain_text("What is (15+27)*3?")
    await expect(first.locator(".chip.recorded")).to_be_visible()
    await expect(first.locator(".tool")).to_contain_text("126")
    await expect(first.locator(".answer")).to_contain_text("126")
    await expect(second.locator(".said")).to_contain_text("What can you do?")
    await expect(second.locator(".answer")).not_to_be_empty()

    await page.locator(".moment", has_text="Run tools").last.click()
    await page.get_by_role("button", name="Replay from here").click()
    await expect(page.locator(".turn")).to_have_count(1)  # as far as the checkpoint goes, then the rest
    await expect(first.locator(".tool")).to_contain_text("126")
    await expect(page.locator(".turn")).to_have_count(2)
    await ended(page)
    await page.click(".moment >> nth=0")
    await page.get_by_role("button", name="Replay from the start").click()
    await expect(page.locator(".turn")).to_have_count(2)
    await ended(page)
    await page.click("#leave-recording")
    await expect(page.locator(".turn")).to_have_count(2)
    await expect(page.locator(".chip.recorded")).to_have_count(0)
    await expect(page.locator("#composer")).to_be_enabled()


async def test_a_run_is_done_again_from_a_checkpoint(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await ask(page, "What can you do?")
    await page.click("#toggle-checkpoints")
    await page.locator(".moment", has_text="Run tools").last.click()
    await expect(page.locator(".detail-title")).to_contain_text("Run tools")
    await page.get_by_role("button", name="Run again from here").click()
    await ended(page)
    await expect(page.locator(".turn")).to_have_count(1)
    await expect(last(page, ".tool")).to_contain_text("126")
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(page.locator("[data-node=analyze_intent]")).to_have_attribute("data-state", "waiting")


# When things go wrong


async def test_a_dropped_stream_goes_on_where_it_broke(open_page, base_url):
    page = await open_page(base_url, script=CUT + RECORD)
    resumed: list[str] = []
    page.on("request", lambda request: resumed.append(request.headers.get("last-event-id", "")))
    await ask(page, "count please")
    texts = list(dict.fromkeys(await page.evaluate("__texts")))
    assert_grows(texts)
    ids = [int(one) for one in resumed if one]
    assert len(ids) == 2
    assert 0 < ids[0] < ids[1]
    await expect(page.locator("#connection")).to_be_hidden()
    await expect(page.locator(".error")).to_have_count(0)


async def test_a_node_that_restarts_writes_its_text_anew(open_page, serve):
    app = create_service()
    page = await open_page(serve(app), script=RECORD)
    await ask(page, "crash, count")
    expected = " ".join(str(n) for n in range(100, 160))
    await expect(last(page, ".answer")).to_have_text(expected)
    texts = list(dict.fromkeys(await page.evaluate("__texts")))
    assert [text for text in texts if not expected.startswith(text)] == []
    assert any(number > ATTEMPT_SPAN for number, _, _ in next(iter(app.state.runs.values())).frames)
    await expect(page.locator("[data-node=respond] .node-runs")).to_have_text("")


async def test_an_error_is_told_and_can_be_retried(open_page, serve):
    app = create_service()
    page = await open_page(serve(app))
    await ask(page, "please fail once")
    error = last(page, ".error")
    await expect(error).to_contain_text("The model server cannot be reached.")
    await expect(error).to_contain_text("model_unreachable")
    await page.reload()  # and is told again when the session is opened later
    await expect(error).to_contain_text("The model server cannot be reached.")
    await expect(page.locator("[data-node=respond]")).to_have_attribute("data-state", "failed")
    await error.get_by_role("button", name="Retry").click()
    await ended(page)
    await expect(page.locator(".error")).to_have_count(0)
    await expect(last(page, ".answer")).to_contain_text("Just ask.")
    await expect(last(page, ".answer")).not_to_contain_text("This will not")
    (session,) = app.state.sessions.values()
    assert [message["type"] for message in session.messages] == ["human", "ai"]  # said once, answered once


async def test_a_service_that_is_away_is_an_error_with_a_retry(open_page, stub_url):
    page = await open_page(stub_url)
    await page.route("**/chat", lambda route: route.abort())
    await ask(page, "hello")
    await expect(last(page, ".error")).to_contain_text("The service cannot be reached.")
    await page.unroute("**/chat")
    await page.get_by_role("button", name="Retry").click()
    await ended(page)
    await expect(page.locator(".error")).to_have_count(0)
    page.watch.allow("net::ERR_FAILED")


async def test_what_the_model_writes_never_runs(open_page, stub_url):
    page = await open_page(stub_url)
    await ask(page, "markup <img src=x onerror=\"window.__ran='said'\">")
    answer = last(page, ".answer")
    await expect(answer).to_contain_text("<script>window.__ran = 'script'</script>")
    await expect(answer.locator("script, img, b, i, iframe")).to_have_count(0)
    await expect(answer.locator("pre code")).to_contain_text("<script>")
    await expect(answer.locator("strong")).to_have_text("bold <b>text</b>")
    links = await page.eval_on_selector_all(
        ".answer a", "nodes => nodes.map(node => [node.href, node.rel, node.target])"
    )
    assert links == [["https://example.com/a?b=1", "noopener noreferrer", "_blank"]]
    await ask(page, "Search for trouble")
    hits = await page.eval_on_selector_all(".hits a", "nodes => nodes.map(node => node.href)")
    assert hits == ["https://example.org/fsm"]
    assert await page.evaluate("window.__ran") is None


# Questions, keys, other graphs


async def test_a_question_of_the_agent_is_answered(open_page, stub_url):
    page = await open_page(stub_url)
    await ask(page, "ask me")
    question = last(page, ".question")
    await expect(question.locator(".question-text")).to_have_text("Which city do you mean?")
    await expect(question).to_contain_text("options")
    await expect(page.locator("[data-node=respond]")).to_have_attribute("data-state", "asking")
    await expect(page.locator(".sessions li")).to_contain_text("Waiting for your answer")
    await page.reload()  # the question is still there
    await question.locator("textarea").fill('{"city": "부산"}')
    await question.get_by_role("button", name="Answer and go on").click()
    await ended(page)
    await expect(last(page, ".answer")).to_contain_text('You said {"city": "부산"}.')
    await expect(question.locator("textarea")).to_have_count(0)


async def test_the_key_is_asked_for_once_and_kept_for_the_tab(open_page, serve):
    page = await open_page(serve(create_service(api_key="let-me-in")))
    dialog = page.locator("dialog")
    await expect(dialog).to_have_count(1)
    await dialog.locator("input").fill("wrong")
    await dialog.locator("input").press("Enter")
    await expect(dialog).to_contain_text("not accepted")
    await dialog.locator("input").fill("let-me-in")
    await dialog.locator("input").press("Enter")
    await expect(dialog).to_have_count(0)
    await ask(page, "What is (15+27)*3?")
    await page.reload()
    await expect(last(page, ".answer")).to_contain_text("126")
    await expect(dialog).to_have_count(0)
    assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.watch.allow("401")


async def test_nodes_of_another_graph_are_shown_as_they_come(open_page, stub_url):
    page = await open_page(stub_url)
    await ask(page, "stranger")
    for node in ("plan", "act"):
        await expect(page.locator(f"[data-node={node}]")).to_have_attribute("data-state", "done")
    await expect(page.locator("[data-node=respond]")).to_be_hidden()
    await expect(last(page, ".answer")).to_have_text("Done elsewhere.")


# Its looks and its words


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_it_fits_the_window(open_page, base_url, width, dark, locale):
    page = await open_page(base_url, width=width, dark=dark, locale=locale)
    name = f"{width}-{'dark' if dark else 'light'}-{locale[:2]}"
    await shoot(page, f"{name}-empty")
    await page.click(".prompt >> nth=0")
    await ended(page)
    await shoot(page, f"{name}-chat")
    if width == 390:
        await page.click("#open-sidebar")
        await expect(page.locator(".sessions a >> nth=0")).to_be_in_viewport()
        await expect(page.locator("#sidebar")).to_have_css("transform", "none")
        await shoot(page, f"{name}-sessions")
        await page.keyboard.press("Escape")
        await expect(page.locator("#sidebar")).not_to_be_in_viewport()
    await page.click("#toggle-checkpoints")
    await expect(page.locator(".state-messages li")).not_to_have_count(0)
    await shoot(page, f"{name}-checkpoints")


async def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_everything_to_press_has_a_name(open_page, base_url):
    page = await open_page(base_url)
    await ask(page, "What is (15+27)*3?")
    await page.click("#toggle-checkpoints")
    await expect(page.locator(".state-messages li")).not_to_have_count(0)
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, textarea, meter')]
          .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []
    await expect(page.locator("#announcer")).to_contain_text("126")


async def test_both_languages_have_every_text(open_page, stub_url):
    page = await open_page(stub_url)
    tables = await page.evaluate("import('/static/i18n.js').then(({ tables }) => tables)")
    assert tables["en"].keys() == tables["ko"].keys()
    assert [key for table in tables.values() for key, text in table.items() if not text] == []
    holes = re.compile(r"\{\w+\}")
    for key, text in tables["en"].items():
        assert set(holes.findall(json.dumps(text))) == set(holes.findall(json.dumps(tables["ko"][key]))), key
    assert used_keys() - tables["en"].keys() == set()


def used_keys() -> set[str]:
    """The keys that appear in the page's sources as whole strings."""
    source = "\n".join(path.read_text() for path in sorted(Path(STATIC).iterdir()) if path.suffix in (".js", ".html"))
    families = (
        "page|sessions|chat|empty|prompt|graph|doing|intent|tool|turn|interrupt|error|key|checkpoints|recording|json"
    )
    found = set(re.findall(rf"""['"]((?:{families})\.[a-z0-9.]+)['"]""", source))
    assert len(found) > 80
    return found


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_frames_are_read_however_the_bytes_are_cut(open_page, stub_url, size):
    page = await open_page(stub_url)
    first = ': ping\r\n\r\nid: 7\r\nevent: token\r\ndata: {"text":\r\ndata: "안녕"}\r\n\r\n'
    text = first + 'id: 8\ndata: {"a": 1}\n\ndata: {"half'
    read = await page.evaluate(
        """async ([text, size]) => {
          const { readFrames } = await import('/static/sse.js');
          const bytes = new TextEncoder().encode(text);
          const body = new ReadableStream({ start(out) {
            for (let at = 0; at < bytes.length; at += size) out.enqueue(bytes.slice(at, at + size));
            out.close();
          } });
          const frames = [];
          for await (const frame of readFrames(body)) frames.push(frame);
          return frames;
        }""",
        [text, size],
    )
    assert read == [
        {"id": 7, "event": "token", "data": {"text": "안녕"}},
        {"id": 8, "event": "message", "data": {"a": 1}},
    ]


async def test_markdown_survives_whatever_a_model_writes(open_page, stub_url):
    page = await open_page(stub_url)
    written = await page.evaluate(
        """async () => {
          const { markdown } = await import('/static/markdown.js');
          const marks = ['`', '``', '```', '**', '- ', '1. ', '> ', '# ', '\\n', '\\n\\n', '  ', 'a', '한', '[a](',
            'https://x.y', ')', '<b>', '&amp;', '~~~', '*', '_'];
          let seed = 7;
          const next = (n) => (seed = (seed * 48271) % 2147483647) % n;
          const tags = 'P H3 H4 UL OL LI BLOCKQUOTE DIV SPAN BUTTON PRE CODE STRONG A BR svg path';
          const allowed = new Set(tags.split(' '));
          const strange = [];
          for (let round = 0; round < 2000; round += 1) {
            const text = Array.from({ length: next(40) }, () => marks[next(marks.length)]).join('');
            for (const node of markdown(text).querySelectorAll('*')) if (!allowed.has(node.tagName)) strange.push(text);
          }
          markdown('>'.repeat(20000));
          markdown('- '.repeat(20000));
          markdown('**'.repeat(5000));
          const box = document.createElement('div');
          box.append(markdown('1. one\\n   - a\\n   - b\\n2. two\\n\\nthen **bold** `code`\\n> said'));
          return { strange, html: box.innerHTML.replace(/ class="[^"]*"/g, '') };
        }"""
    )
    assert written["strange"] == []
    assert written["html"] == (
        "<ol><li>one<ul><li>a</li><li>b</li></ul></li><li>two</li></ol>"
        "<p>then <strong>bold</strong> <code>code</code></p><blockquote><p>said</p></blockquote>"
    )
