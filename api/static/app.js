/** The page: which session is open, what runs, and who is told of it. */

import * as api from './api.js';
import { checkpointPanel } from './checkpoints.js';
import { askKey } from './dialogs.js';
import { adopt, bind, byId, el, icon, toast, translate } from './dom.js';
import { graphView } from './graph.js';
import { chooseLanguage, currentLanguage, has, t } from './i18n.js';
import { joinedTurns, readMessage, turnsOf } from './messages.js';
import { followRecording, followRun } from './run.js';
import { follow } from './scroll.js';
import { sessionList } from './sessions.js';
import { Turn } from './turn.js';

/** @typedef {{controller: AbortController, runId: string|null, wantsStop: boolean}} Running */

const CHAT_PATH = '#';

/** @type {{sessionId: string|null, running: Running|null, recording: boolean, opening: number}} */
const state = { sessionId: null, running: null, recording: false, opening: 0 };

const parts = {
  turns: byId('turns'), empty: byId('empty'), title: byId('title'), composer: byId('composer'), form: byId('composer-form'),
  send: byId('send'), stop: byId('stop'), connection: byId('connection'), note: byId('recording-note'), toggle: byId('toggle-checkpoints'),
};

adopt(document);
api.keysFrom(askKey);
const graph = graphView(byId('graph'));
const scroll = follow(byId('scroller'), parts.turns, byId('jump'));
const sessions = sessionList(
  { list: byId('sessions'), note: byId('sessions-note'), more: byId('more-sessions') },
  { onDeleted: (id) => { if (id === state.sessionId) newChat(); }, onChange: showTitle, onError: complain },
);
const panel = checkpointPanel(byId('checkpoints'), {
  onSelect: showCheckpoint, onReplay: playRecording, onRerun: runAgain, onClose: checkpointsClosed, onError: complain,
});

/** @type {import('./turn.js').Actions} */
const actions = {
  retry,
  resume: (turn, interruptId, value) =>
    play(turn, (signal) => api.resume({ sessionId: state.sessionId ?? '', interruptId, value }, signal)),
  stepBack: (checkpointId) => openCheckpoints(checkpointId),
};

// ---- The conversation on the screen

function clear() {
  leaveRun();
  parts.turns.replaceChildren();
  setRecording(false);
  graph.reset();
}

/** @param {{user: string|null, recorded?: boolean}} options */
function addTurn({ user, recorded = false }) {
  const turn = new Turn({ user, recorded, actions: recorded ? null : actions });
  parts.turns.append(turn.element);
  parts.empty.hidden = true;
  scroll.toEnd();
  return turn;
}

function showTitle() {
  const known = sessions.find(state.sessionId)?.title;
  const said = parts.turns.querySelector('.said p')?.textContent;
  parts.title.textContent = state.sessionId === null ? t('sessions.new') : known || said || t('sessions.untitled');
  document.title = state.sessionId === null ? 'Threadline' : `${parts.title.textContent} · Threadline`;
}

function setSession(id) {
  state.sessionId = id;
  sessions.select(id);
  parts.toggle.hidden = id === null;
  showTitle();
}

function newChat() {
  state.opening += 1;
  hideCheckpoints();
  clear();
  setSession(null);
  goTo(CHAT_PATH);
  parts.empty.hidden = false;
  closeSidebar();
  // On a phone the focus would open the keyboard over the page.
  if (matchMedia('(hover: hover)').matches) parts.composer.focus();
}

/** @param {string} id @param {string|null} [checkpointId] */
async function openSession(id, checkpointId = null) {
  const opening = ++state.opening;
  hideCheckpoints();
  clear();
  setSession(id);
  goTo(`#s=${encodeURIComponent(id)}`);
  parts.empty.hidden = true;
  closeSidebar();
  const loading = el('p', { class: 'muted loading', t: 'chat.loading' });
  parts.turns.append(loading);
  try {
    const [session, last] = await Promise.all([api.session(id), newestCheckpoint(id)]);
    if (opening !== state.opening) return;
    loading.remove();
    const messages = last?.values?.messages ?? [];
    const turn = showTurns(joinedTurns(messages.map(readMessage), session.messages.map(readMessage)));
    if (last?.values?.intent?.kind) turn?.showIntent(last.values.intent);
    // A turn that is not at its end is still going on, waits for an answer, or failed: its run's events say which.
    if (last?.next.length && last.run_id) void play(turn ?? addTurn({ user: null }), (signal) => api.events(last.run_id, 0, signal), last.run_id);
  } catch (error) {
    if (opening !== state.opening) return;
    newChat();
    complain(error);
    return;
  }
  if (checkpointId) await openCheckpoints(checkpointId);
}

/** @returns the newest checkpoint with its state, or null where there is none yet */
async function newestCheckpoint(sessionId) {
  const { items: [last] } = await api.checkpoints(sessionId, { limit: 1 });
  return last ? api.checkpoint(sessionId, last.checkpoint_id) : null;
}

/** @param {ReturnType<typeof turnsOf>} turns @returns {Turn|null} the last one */
function showTurns(turns, { recorded = false } = {}) {
  let turn = null;
  for (const { user, rest } of turns) {
    turn = addTurn({ user: user?.text ?? null, recorded });
    turn.restore(rest);
  }
  showTitle();
  scroll.toEnd();
  return turn;
}

// ---- Runs

/** @param {string} text */
function say(text) {
  const turn = addTurn({ user: text });
  showTitle();
  void play(turn, (signal) => api.chat({ message: text, sessionId: state.sessionId }, signal));
}

/**
 * Show a run in a turn, frame by frame, until it ends.
 * @param {Turn} turn
 * @param {(signal: AbortSignal) => Promise<Response>} open
 * @param {string|null} [runId] of a run that is already going on
 */
async function play(turn, open, runId = null) {
  const running = begin(runId);
  const { signal } = running.controller;
  turn.begin();
  graph.reset();
  try {
    for await (const frame of followRun(open, { signal, runId, onLink: showLink })) {
      if (signal.aborted) return;
      if (frame.event === 'session') started(running, frame.data);
      show(turn, frame);
    }
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof api.ApiError)) console.error(error);
    turn.fail(error instanceof api.ApiError ? error : { kind: 'internal' });
    graph.settle('error');
  } finally {
    if (state.running === running) {
      finish();
      void sessions.refresh();
      void panel.refresh();
    }
  }
}

function show(turn, frame) {
  turn.take(frame);
  if (frame.event === 'node') graph.note(frame.data, turn.attempt(frame));
  else if (frame.event === 'done') graph.settle(frame.data.status);
  else if (frame.event === 'error') graph.settle('error');
}

function begin(runId) {
  leaveRun();
  const running = { controller: new AbortController(), runId, wantsStop: false };
  state.running = running;
  parts.send.hidden = true;
  parts.stop.hidden = false;
  parts.stop.disabled = false;
  bind(parts.stop, 'aria-label', 'chat.stop');
  panel.setBusy(true);
  return running;
}

function finish() {
  const hadFocus = document.activeElement === parts.stop;
  state.running = null;
  parts.send.hidden = false;
  parts.stop.hidden = true;
  if (hadFocus) parts.composer.focus();
  panel.setBusy(false);
  showLink(true);
}

/** @param {Running} running @param {{session_id: string, run_id: string}} data */
function started(running, { session_id: sessionId, run_id: runId }) {
  running.runId = runId;
  if (state.sessionId !== sessionId) {
    setSession(sessionId);
    goTo(`#s=${encodeURIComponent(sessionId)}`);
    void sessions.refresh();
  }
  if (running.wantsStop) void stopRun(running);
}

/** Stop listening. The run itself goes on. */
function leaveRun() {
  if (state.running === null) return;
  state.running.controller.abort();
  finish();
}

function stop() {
  const { running } = state;
  if (running === null) return;
  if (state.recording) {
    leaveRun();
    return;
  }
  parts.stop.disabled = true;
  bind(parts.stop, 'aria-label', 'chat.stopping');
  running.wantsStop = true;
  if (running.runId !== null) void stopRun(running);
}

/** The run's own `done` says when it has stopped. @param {Running} running */
async function stopRun(running) {
  try {
    await api.cancel(running.runId ?? '');
  } catch (error) {
    parts.stop.disabled = false;
    bind(parts.stop, 'aria-label', 'chat.stop');
    complain(error);
  }
}

/**
 * Go on with a failed turn where it failed; only a turn that never began is said again.
 * @param {Turn} turn
 */
function retry(turn) {
  const { sessionId } = state;
  const again = (signal) => {
    turn.clear();
    return api.chat({ message: turn.user ?? '', sessionId }, signal);
  };
  void play(turn, async (signal) => {
    if (sessionId === null || turn.runId === null) return again(signal);
    const { items: [last] } = await api.checkpoints(sessionId, { limit: 1 });
    if (!last || last.run_id !== turn.runId || last.next.length === 0) return again(signal);
    return api.replay(sessionId, last.checkpoint_id, 'rerun', signal);
  });
}

/** @param {boolean} up */
function showLink(up) {
  bind(parts.connection, 'text', 'error.reconnecting');
  parts.connection.hidden = up;
}

// ---- Checkpoints

/** @param {string|null} [checkpointId] */
async function openCheckpoints(checkpointId = null) {
  if (state.sessionId === null) return;
  parts.toggle.setAttribute('aria-expanded', 'true');
  document.body.classList.add('with-checkpoints');
  await panel.open(state.sessionId, checkpointId);
}

function hideCheckpoints() {
  panel.hide();
  parts.toggle.setAttribute('aria-expanded', 'false');
  document.body.classList.remove('with-checkpoints');
}

function checkpointsClosed() {
  hideCheckpoints();
  if (state.sessionId !== null) goTo(`#s=${encodeURIComponent(state.sessionId)}`);
  if (state.running === null) graph.reset();
  parts.toggle.focus();
}

/** @param {any|null} item */
function showCheckpoint(item) {
  if (item === null || state.sessionId === null) return;
  goTo(`#s=${encodeURIComponent(state.sessionId)}&c=${encodeURIComponent(item.checkpoint_id)}`);
  if (state.running === null) graph.mark(item.nodes, item.next);
}

/** The messages of a checkpoint. */
async function messagesAt(sessionId, checkpointId) {
  const { values } = await api.checkpoint(sessionId, checkpointId);
  return (values?.messages ?? []).map(readMessage);
}

async function runAgain(item) {
  const { sessionId } = state;
  if (sessionId === null || state.running !== null) return;
  try {
    const turns = turnsOf(await messagesAt(sessionId, item.checkpoint_id));
    clear();
    closePanelOnPhone();
    const turn = showTurns(turns) ?? addTurn({ user: null });
    void play(turn, (signal) => api.replay(sessionId, item.checkpoint_id, 'rerun', signal));
  } catch (error) {
    complain(error);
  }
}

/** Play what was recorded after a checkpoint, or all of it. @param {any|null} item */
async function playRecording(item) {
  const { sessionId } = state;
  if (sessionId === null || state.running !== null) return;
  clear();
  setRecording(true);
  closePanelOnPhone();
  const running = begin(null);
  const { signal } = running.controller;
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  /** @type {Turn|null} */
  let turn = null;
  try {
    const past = item ? turnsOf(await messagesAt(sessionId, item.checkpoint_id)) : [];
    if (signal.aborted) return;
    const turnOf = recordedTurns(sessionId, past.at(-1)?.user?.id, showTurns(past, { recorded: true }));
    const open = (signal) => api.replay(sessionId, item?.checkpoint_id ?? null, 'recorded', signal);
    for await (const frame of followRecording(open, { signal, still })) {
      const shown = frame.run === null && turn ? turn : await turnOf(frame.run); // without: the replay itself broke off
      if (signal.aborted) return;
      if (shown !== turn) graph.reset();
      turn = shown;
      show(turn, frame);
    }
    if (turn === null) toast(t('recording.none'));
  } catch (error) {
    if (!signal.aborted) complain(error);
  } finally {
    turn?.leave();
    if (state.running === running) finish();
  }
}

/**
 * The turn a recorded run belongs to: runs that answer the same message (an interrupt and its resume) share one.
 * @param {string} sessionId
 * @param {string|undefined} asked the message the turn on the screen answers
 * @param {Turn|null} turn
 */
function recordedTurns(sessionId, asked, turn) {
  const runs = new Map();
  const turns = new Map(turn && asked ? [[asked, turn]] : []);
  /** @type {any[]|null} */
  let items = null;
  return async (runId) => {
    if (runs.has(runId)) return runs.get(runId);
    items ??= await allCheckpoints(sessionId);
    const newest = items.find((item) => item.run_id === runId);
    const said = newest ? (await messagesAt(sessionId, newest.checkpoint_id)).findLast(({ role }) => role === 'user') : null;
    const shown = turns.get(said?.id) ?? addTurn({ user: said?.text ?? null, recorded: true });
    shown.begin();
    turns.set(said?.id ?? runId, shown);
    runs.set(runId, shown);
    return shown;
  };
}

async function allCheckpoints(sessionId) {
  const items = [];
  for (let before = null; ;) {
    const page = await api.checkpoints(sessionId, { before, limit: 500 });
    items.push(...page.items);
    before = page.next;
    if (!before) return items;
  }
}

function setRecording(on) {
  state.recording = on;
  parts.note.hidden = !on;
  document.body.classList.toggle('recording', on);
  parts.composer.disabled = on;
}

function closePanelOnPhone() {
  if (panel.isOpen() && matchMedia('(max-width: 1099px)').matches) panel.close();
}

// ---- The frame around it

function complain(error) {
  if (!(error instanceof api.ApiError)) console.error(error);
  const kind = error.kind ?? 'internal';
  toast(t(has(`error.${kind}`) ? `error.${kind}` : 'error.internal'));
}

/** Change the address without a reload, and without hearing of it ourselves. @param {string} hash */
function goTo(hash) {
  if (location.hash === hash || (hash === CHAT_PATH && location.hash === '')) return;
  const to = hash === CHAT_PATH ? location.pathname + location.search : hash;
  const sameSession = new URLSearchParams(location.hash.slice(1)).get('s') === new URLSearchParams(hash.slice(1)).get('s');
  history[sameSession ? 'replaceState' : 'pushState'](null, '', to);
}

function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const id = address.get('s');
  if (id === null) {
    if (state.sessionId !== null || state.opening === 0) newChat();
  } else if (id !== state.sessionId) void openSession(id, address.get('c'));
  else if (address.get('c')) void openCheckpoints(address.get('c'));
  else closeSidebar();
}

function openSidebar() {
  document.body.classList.add('with-sidebar');
  byId('scrim').hidden = false;
  byId('open-sidebar').setAttribute('aria-expanded', 'true');
  byId('close-sidebar').focus();
}

function closeSidebar() {
  if (!document.body.classList.contains('with-sidebar')) return;
  document.body.classList.remove('with-sidebar');
  byId('scrim').hidden = true;
  byId('open-sidebar').setAttribute('aria-expanded', 'false');
  byId('open-sidebar').focus();
}

function showEmpty() {
  const prompts = [['calculator', 1], ['weather', 2], ['search', 3], ['chat', 4]].map(([name, n]) =>
    el('button', { class: 'prompt', type: 'button', on: { click: () => say(t(`prompt.${n}`)) } },
      icon(String(name)), el('span', { class: 'prompt-title', t: `prompt.${n}.title` }), el('span', { t: `prompt.${n}` })));
  parts.empty.replaceChildren(
    el('h2', { t: 'empty.title' }), el('p', { class: 'muted', t: 'empty.text' }), el('div', { class: 'prompts' }, ...prompts));
}

function showLanguage() {
  const language = currentLanguage();
  document.documentElement.lang = language;
  for (const button of document.querySelectorAll('[data-language]')) {
    button.setAttribute('aria-pressed', String(button.getAttribute('data-language') === language));
  }
  translate();
  sessions.render();
  panel.render();
  showTitle();
}

function fit() {
  parts.composer.style.height = 'auto';
  parts.composer.style.height = `${Math.min(parts.composer.scrollHeight, 200)}px`;
  parts.send.disabled = parts.composer.value.trim() === '';
}

function submit() {
  const text = parts.composer.value.trim();
  if (text === '' || state.running !== null || state.recording) return;
  parts.composer.value = '';
  fit();
  say(text);
}

parts.form.addEventListener('submit', (event) => { event.preventDefault(); submit(); });
parts.composer.addEventListener('input', fit);
parts.composer.addEventListener('keydown', (event) => {
  // While a Korean syllable is being composed, Enter only ends it (keyCode 229 is how Safari says so).
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
parts.stop.addEventListener('click', stop);
byId('new-chat').addEventListener('click', newChat);
byId('open-sidebar').addEventListener('click', openSidebar);
byId('close-sidebar').addEventListener('click', closeSidebar);
byId('scrim').addEventListener('click', closeSidebar);
byId('skip').addEventListener('click', (event) => { event.preventDefault(); parts.composer.focus(); });
byId('leave-recording').addEventListener('click', () => { if (state.sessionId) void openSession(state.sessionId); });
parts.toggle.addEventListener('click', () => (panel.isOpen() ? panel.close() : void openCheckpoints()));
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') closeSidebar(); });
for (const button of document.querySelectorAll('[data-language]')) {
  button.addEventListener('click', () => {
    chooseLanguage(/** @type {'en'|'ko'} */ (button.getAttribute('data-language')));
    showLanguage();
  });
}
addEventListener('hashchange', readAddress);

showEmpty();
showLanguage();
fit();
readAddress();
void sessions.refresh();
