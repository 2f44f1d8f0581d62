/** A turn: what the user said, and everything the agent does until its reply. */

import { announce, bind, el, icon } from './dom.js';
import { duration, has, languageName, number, t } from './i18n.js';
import { jsonTree } from './json.js';
import { copyText, markdown } from './markdown.js';
import { readJson, textOf } from './messages.js';
import { nodeName, placeOf } from './graph.js';
import { toolCard } from './tools.js';

/** Event ids of a run's second attempt start above this, of its third above twice this. */
const ATTEMPT_SPAN = 1_000_000;

/**
 * @typedef {object} Actions
 * @property {(turn: Turn) => void} retry
 * @property {(turn: Turn, interruptId: string, value: any) => void} resume
 * @property {(checkpointId: string) => void} stepBack
 */

export class Turn {
  /** @param {{user?: string|null, actions?: Actions|null, recorded?: boolean}} options without `actions` it can only be read */
  constructor({ user = null, actions = null, recorded = false }) {
    this.user = user;
    this.actions = actions;
    /** @type {string|null} */
    this.runId = null;
    this.recorded = recorded;
    this.runs = 0;
    this.text = '';
    /** @type {Map<string, string>} node → the step and attempt it last started in */
    this.started = new Map();
    /** @type {Map<string, {call: import('./tools.js').Call, card: HTMLElement}>} */
    this.calls = new Map();
    this.drawing = 0;

    this.head = el('div', { class: 'reply-head' },
      el('span', { class: 'who', t: 'chat.agent' }),
      recorded && el('span', { class: 'chip recorded' }, icon('film'), el('span', { t: 'turn.recorded' })));
    this.intent = el('div', { class: 'intent', hidden: true });
    this.tools = el('div', { class: 'tools', hidden: true });
    this.doing = el('p', { class: 'doing', hidden: true });
    this.answer = el('div', { class: 'answer', hidden: true });
    this.questions = el('div', { class: 'questions' });
    this.trouble = el('div', { class: 'trouble' });
    this.foot = el('footer', { class: 'reply-foot', hidden: true });
    this.element = el('article', { class: 'turn', 'data-recorded': recorded },
      user !== null && el('div', { class: 'said' }, el('h2', { class: 'hidden', t: 'chat.you' }), el('p', { text: user })),
      el('div', { class: 'reply' },
        this.head, this.intent, this.tools, this.answer, this.doing, this.questions, this.trouble, this.foot));
  }

  /** A run begins, or begins again after a failure. */
  begin() {
    this.trouble.replaceChildren();
    this.foot.hidden = true;
    this.answer.setAttribute('aria-busy', 'true');
    this.#does('doing.start');
  }

  /** The message is said once more: nothing of the first attempt stays. */
  clear() {
    this.calls.clear();
    this.tools.replaceChildren();
    this.tools.hidden = true;
    this.intent.hidden = true;
    this.#finalText('');
  }

  /** A short key that differs whenever the same work is done anew. @param {import('./sse.js').Frame} frame */
  attempt(frame) {
    return this.runs * 1000 + Math.floor((frame.id ?? 0) / ATTEMPT_SPAN);
  }

  /** @param {import('./sse.js').Frame} frame */
  take(frame) {
    const { event, data } = frame;
    if (event === 'session') {
      this.runId = data.run_id;
      this.runs += 1;
      this.#finalText('');
    } else if (event === 'node') this.#node(data, this.attempt(frame));
    else if (event === 'intent') this.showIntent(data);
    else if (event === 'tool') this.showCall(data);
    else if (event === 'token') this.#token(data.text);
    else if (event === 'message') this.#finalText(textOf(data.content));
    else if (event === 'interrupt') this.#ask(data);
    else if (event === 'error') this.fail(data);
    else if (event === 'done') this.#end(data);
  }

  #node(event, attempt) {
    if (event.status !== 'started') return;
    const node = placeOf(event);
    const before = this.started.get(node);
    const now = `${attempt}/${event.step ?? 0}`;
    this.started.set(node, now);
    // The node writes its text once more, from the start; two tasks of one node in the same step write side by side.
    if (before !== undefined && before !== now) this.#finalText('');
    if (has(`doing.${node}`)) this.#does(`doing.${node}`);
    else this.#does('doing.other', { name: () => nodeName(node) });
  }

  #does(key, params) {
    bind(this.doing, 'text', key, params);
    this.doing.hidden = false;
  }

  /** @param {{kind?: string, confidence?: number, language?: string}} intent */
  showIntent({ kind = 'unknown', confidence, language }) {
    const percent = Math.round((confidence ?? 0) * 100);
    const meter = el('meter', { min: '0', max: '100', value: String(percent), tLabel: 'intent.confidence' });
    const name = has(`intent.kind.${kind}`) ? { t: `intent.kind.${kind}` } : { text: kind };
    this.intent.replaceChildren(
      el('span', { class: 'intent-title' }, icon('spark'), el('span', { t: 'intent.title' })),
      el('strong', { class: 'intent-kind', 'data-kind': kind, ...name }),
      ...(typeof confidence === 'number'
        ? [el('span', { class: 'intent-confidence' }, meter, el('span', { t: 'intent.confidence.value', p: { n: percent } }))] : []),
      ...(language ? [languageChip(language)] : []));
    this.intent.hidden = false;
  }

  /** @param {import('./tools.js').Call} call */
  showCall(call) {
    const known = this.calls.get(call.id);
    const whole = { ...(known && { args: known.call.args }), ...call };
    const card = toolCard(whole);
    if (known) known.card.replaceWith(card);
    else this.tools.append(card);
    this.tools.hidden = false;
    this.calls.set(call.id, { call: whole, card });
  }

  #token(text) {
    this.text += text;
    this.doing.hidden = true;
    // One drawing per frame of the screen, however fast the tokens come.
    if (!this.drawing) this.drawing = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    this.answer.replaceChildren(markdown(this.text));
    this.answer.hidden = this.text === '';
  }

  #finalText(text) {
    this.text = text;
    this.#draw();
  }

  /** @param {{id: string, value: any}} interrupt */
  #ask({ id, value }) {
    const field = `answer-${id}`;
    const box = el('textarea', { id: field, rows: '2', 'aria-describedby': `${field}-hint` });
    const form = el('form', { class: 'question-form' },
      el('label', { for: field, t: 'interrupt.answer' }), box,
      el('p', { class: 'muted', id: `${field}-hint`, t: 'interrupt.hint' }),
      el('button', { class: 'button primary', type: 'submit', t: 'interrupt.send' }));
    const card = el('section', { class: 'question', 'data-interrupt': id },
      el('h3', {}, icon('hand'), el('span', { t: 'interrupt.title' })), ...question(value));
    if (this.actions) {
      card.append(form);
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        const text = box.value.trim();
        if (text === '' || this.running) return;
        form.replaceWith(el('p', { class: 'answered' }, el('span', { class: 'muted', t: 'interrupt.answered' }), el('span', { text })));
        this.actions?.resume(this, id, readJson(text));
      });
    }
    const old = [...this.questions.children].find((node) => node.getAttribute('data-interrupt') === id);
    if (old) old.replaceWith(card);
    else this.questions.append(card);
  }

  get running() {
    return this.answer.getAttribute('aria-busy') === 'true';
  }

  /** @param {{kind?: string, message?: string, retryable?: boolean}} error */
  fail({ kind = 'internal', message = '' }) {
    this.#quiet('stopped');
    const key = has(`error.${kind}`) ? `error.${kind}` : 'error.internal';
    const retry = this.actions && el('button', { class: 'button', type: 'button', on: { click: () => this.actions?.retry(this) } },
      icon('again'), el('span', { t: 'turn.retry' }));
    this.trouble.replaceChildren(el('section', { class: 'error', 'data-kind': kind },
      el('h3', {}, icon('alert'), el('span', { t: 'error.title' }), el('code', { class: 'error-kind', text: kind })),
      el('p', { t: key }),
      message && message !== t(key) && el('p', { class: 'muted', text: message }),
      retry));
    announce(this.trouble.textContent ?? '');
  }

  #end({ status, usage, cost, checkpoint_id: checkpointId, ms }) {
    this.#quiet(status === 'success' ? 'finished' : 'stopped');
    if (status === 'success' && this.text === '' && this.calls.size === 0) this.answer.replaceChildren(el('p', { class: 'muted', t: 'turn.silent' }));
    if (status === 'success') this.answer.hidden = false;
    const stopped = status === 'cancelled' ? 'turn.stopped' : status === 'interrupted' ? 'turn.waiting' : null;
    this.showFoot({ stopped, usage, cost, checkpointId, ms });
    if (!this.recorded && this.text) bind(document.getElementById('announcer'), 'text', 'chat.answered', { text: this.answer.textContent ?? '' });
    this.questions.querySelector('textarea')?.focus({ preventScroll: true });
  }

  /** Nothing goes on any more: calls without an answer are shown as stopped. */
  #quiet(status) {
    if (this.drawing) this.#draw();
    this.doing.hidden = true;
    this.answer.removeAttribute('aria-busy');
    for (const { call } of [...this.calls.values()]) if (call.status === 'started') this.showCall({ ...call, status });
  }

  /** The stream was left on purpose: the turn stands as it is. */
  leave() {
    this.#quiet('stopped');
  }

  /** @param {{stopped?: string|null, usage?: any, cost?: number|null, checkpointId?: string|null, ms?: number}} facts */
  showFoot({ stopped = null, usage, cost, checkpointId = null, ms }) {
    const tokens = usage?.total_tokens ?? (usage ? (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0) : 0);
    const copy = el('button', {
      class: 'icon-button small', type: 'button', tLabel: 'page.copy', tTitle: 'page.copy', on: { click: () => copyText(this.text, copy) },
    }, icon('copy'));
    const back = this.actions && checkpointId && el('button', {
      class: 'icon-button small', type: 'button', tLabel: 'turn.checkpoint', tTitle: 'turn.checkpoint',
      on: { click: () => this.actions?.stepBack(checkpointId) },
    }, icon('history'));
    this.foot.replaceChildren(...[
      this.text && copy, back,
      stopped && el('span', { class: 'chip state stopped', t: stopped }),
      el('span', { class: 'facts separated' },
        typeof ms === 'number' && el('span', { text: duration(ms) }),
        tokens > 0 && el('span', { t: 'turn.tokens', p: { n: tokens } }),
        typeof cost === 'number' && cost > 0 && el('span', { text: `$${cost < 0.01 ? cost.toPrecision(2) : number(cost)}` })),
    ].filter(Boolean));
    this.foot.hidden = false;
  }

  /** A turn of an old session, from its messages. @param {import('./messages.js').Message[]} messages */
  restore(messages) {
    for (const message of messages) {
      for (const call of message.calls) this.showCall({ ...call, status: 'stopped' });
      if (message.role === 'tool') this.#restoreResult(message);
      else if (message.role === 'assistant' && message.text) this.text += (this.text && '\n\n') + message.text;
    }
    this.#draw();
    const { tokens, cost, status } = messages.at(-1)?.metadata ?? {};
    const stopped = status === 'cancelled' ? 'turn.stopped' : null;
    if (messages.length) this.showFoot({ stopped, usage: { total_tokens: tokens ?? 0 }, cost });
  }

  #restoreResult({ callId, name, text, failed }) {
    const id = callId ?? `${name}-${this.calls.size}`;
    const asked = this.calls.get(id)?.call;
    const outcome = failed ? { status: 'failed', error: text } : { status: 'finished', result: readJson(text) };
    this.showCall({ id, name: name ?? asked?.name ?? 'tool', args: asked?.args, ...outcome });
  }
}

function languageChip(code) {
  const chip = el('span', { class: 'intent-language' }, el('span', { class: 'hidden', t: 'intent.language' }));
  const name = el('span');
  bind(name, 'text', 'intent.language.value', { name: () => languageName(code) });
  chip.append(name);
  return chip;
}

/** What an interrupt asks: its words, and the whole of it where there is more than words. */
function question(value) {
  if (typeof value === 'string') return [el('div', { class: 'question-text' }, markdown(value))];
  const words = value?.question ?? value?.message ?? value?.description;
  return [
    ...(typeof words === 'string' ? [el('div', { class: 'question-text' }, markdown(words))] : []),
    jsonTree(value, { open: true }),
  ];
}
