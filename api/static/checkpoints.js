/** The panel that steps back through a session's checkpoints. */

import * as api from './api.js';
import { el, icon } from './dom.js';
import { ago, has, moment, t } from './i18n.js';
import { jsonTree } from './json.js';
import { nodeName } from './graph.js';
import { readMessage } from './messages.js';
import { toolName } from './tools.js';

const BRIEF = 600;

/**
 * @param {HTMLElement} root
 * @param {{onSelect: (item: any|null) => void, onReplay: (item: any|null) => void, onRerun: (item: any) => void,
 *   onClose: () => void, onError: (error: any) => void}} actions
 */
export function checkpointPanel(root, { onSelect, onReplay, onRerun, onClose, onError }) {
  /** @type {string|null} */
  let sessionId = null;
  /** @type {any[]} newest first */
  let items = [];
  /** @type {string|null} */
  let next = null;
  let at = 0;
  /** @type {Map<string, any>} */
  let details = new Map();
  let busy = false;
  let asked = 0;

  const heading = el('h2', { t: 'checkpoints.title', tabindex: '-1' });
  const older = stepButton('left', 'checkpoints.older', () => step(1));
  const newer = stepButton('right', 'checkpoints.newer', () => step(-1));
  const position = el('span', { class: 'position', 'aria-live': 'polite' });
  const timeline = el('ol', { class: 'timeline' });
  const more = el('button', { class: 'button quiet wide', type: 'button', t: 'checkpoints.more', on: { click: () => showOlder() } });
  const list = el('div', { class: 'timeline-box' }, timeline, more);
  const detail = el('div', { class: 'detail' });
  const none = el('p', { class: 'muted padded', t: 'checkpoints.none' });
  root.replaceChildren(
    el('header', { class: 'panel-head' }, heading,
      el('button', { class: 'icon-button', type: 'button', tLabel: 'checkpoints.close', on: { click: () => close() } }, icon('close'))),
    el('div', { class: 'stepper' }, older, position, newer),
    el('div', { class: 'panel-body' }, none, list, detail));

  const isOpen = () => !root.hidden;
  const chosen = () => items[at] ?? null;

  /** @param {string} id @param {string|null} [checkpointId] */
  async function open(id, checkpointId = null) {
    root.hidden = false;
    await load(id, checkpointId);
    heading.focus({ preventScroll: true });
  }

  async function load(id, checkpointId) {
    const turn = ++asked;
    if (id !== sessionId) {
      details = new Map();
      items = [];
    }
    sessionId = id;
    try {
      const page = await api.checkpoints(id);
      while (checkpointId && page.next && !page.items.some(is(checkpointId))) {
        const further = await api.checkpoints(id, { before: page.next });
        page.items.push(...further.items);
        page.next = further.next;
      }
      if (turn !== asked) return;
      ({ items, next } = page);
      at = Math.max(0, items.findIndex(is(checkpointId)));
      render();
      await showDetail();
    } catch (error) {
      if (turn === asked) onError(error);
    }
  }

  const is = (checkpointId) => (item) => item.checkpoint_id === checkpointId;

  function hide() {
    root.hidden = true;
    asked += 1;
  }

  function close() {
    hide();
    onClose();
  }

  async function showOlder() {
    if (!next || !sessionId) return;
    more.disabled = true;
    try {
      const page = await api.checkpoints(sessionId, { before: next });
      items = [...items, ...page.items];
      next = page.next;
      render();
    } catch (error) {
      onError(error);
    } finally {
      more.disabled = false;
    }
  }

  /** @param {1|-1} by 1 goes to the older one */
  async function step(by) {
    if (by === 1 && at + 1 >= items.length && next) await showOlder();
    choose(at + by);
  }

  function choose(index) {
    if (index < 0 || index >= items.length || index === at) return;
    at = index;
    render();
    void showDetail();
  }

  function render() {
    const item = chosen();
    none.hidden = item !== null;
    list.hidden = item === null;
    detail.hidden = item === null;
    more.hidden = !next;
    older.disabled = item === null || (at + 1 >= items.length && !next);
    newer.disabled = at === 0;
    position.textContent = item === null ? '' : t('checkpoints.position', { n: items.length - at, total: `${items.length}${next ? '+' : ''}` });
    const focused = timeline.contains(document.activeElement);
    timeline.replaceChildren(...items.map(row));
    const current = timeline.querySelector('[aria-current]');
    if (focused) current?.focus({ preventScroll: true });
    current?.scrollIntoView({ block: 'nearest' });
  }

  function row(item, index) {
    const button = el('button', { class: 'moment', type: 'button', 'aria-current': index === at ? 'step' : null, on: { click: () => choose(index) } },
      el('span', { class: 'moment-step', text: String(item.step) }),
      el('span', { class: 'moment-title', text: titleOf(item) }),
      el('span', { class: 'moment-time', text: ago(item.created_at) }));
    const turnEnds = index > 0 && items[index - 1].run_id !== item.run_id;
    return el('li', { class: turnEnds ? 'turn-ends' : null, 'data-checkpoint': item.checkpoint_id }, button);
  }

  async function showDetail() {
    const item = chosen();
    onSelect(item);
    if (item === null || sessionId === null) return;
    const turn = asked;
    try {
      const whole = details.get(item.checkpoint_id) ?? await api.checkpoint(sessionId, item.checkpoint_id);
      details.set(item.checkpoint_id, whole);
      if (turn !== asked || chosen()?.checkpoint_id !== item.checkpoint_id) return;
      drawDetail({ ...item, ...whole });
    } catch (error) {
      if (turn === asked) onError(error);
    }
  }

  function drawDetail(item) {
    const { messages, ...rest } = item.values ?? {};
    const treeOpen = detail.querySelector('.whole-state')?.hasAttribute('open') ?? false;
    detail.dataset.checkpoint = item.checkpoint_id;
    detail.replaceChildren(
      el('h3', { class: 'detail-title' }, el('span', { t: 'checkpoints.step', p: { n: item.step } }), el('span', { class: 'muted', text: titleOf(item) })),
      el('dl', { class: 'detail-facts' },
        ...fact('checkpoints.nodes', nodeChips(item.nodes, item)),
        ...fact('checkpoints.next', item.next.length ? nodeChips(item.next) : el('span', { t: 'checkpoints.next.none' })),
        ...fact('checkpoints.time', el('time', { datetime: item.created_at, text: moment(item.created_at) }))),
      actionsOf(item),
      el('h4', { t: 'checkpoints.messages' }),
      Array.isArray(messages) && messages.length
        ? el('ol', { class: 'state-messages' }, ...messages.map(messageRow)) : el('p', { class: 'muted', t: 'checkpoints.messages.none' }),
      el('details', { class: 'whole-state', open: treeOpen }, el('summary', { t: 'checkpoints.state' }),
        jsonTree({ ...rest, messages: messages ?? [] }, { open: true })),
      el('p', { class: 'muted keys not-phone', t: 'checkpoints.keys' }));
  }

  function actionsOf(item) {
    const ended = item.next.length === 0;
    const nothingAfter = ended && at === 0;
    const replay = el('button', { class: 'button', type: 'button', disabled: busy, on: { click: () => onReplay(nothingAfter ? null : item) } },
      icon('film'), el('span', { t: nothingAfter ? 'checkpoints.replay.all' : 'checkpoints.replay' }));
    const rerun = el('button', { class: 'button', type: 'button', disabled: busy || ended, on: { click: () => onRerun(item) } }, icon('again'), el('span', { t: 'checkpoints.rerun' }));
    return el('div', { class: 'detail-actions' },
      el('div', { class: 'detail-action' }, replay, el('p', { class: 'muted', t: 'checkpoints.replay.hint' })),
      el('div', { class: 'detail-action' }, rerun, el('p', { class: 'muted', t: ended ? 'checkpoints.rerun.end' : 'checkpoints.rerun.hint' })));
  }

  document.addEventListener('keydown', (event) => {
    if (!isOpen() || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (document.querySelector('dialog[open]') || event.target.closest?.('input, textarea, select, pre, [contenteditable]')) return;
    if (event.key === 'ArrowLeft') void step(1);
    else if (event.key === 'ArrowRight') void step(-1);
    else if (event.key === 'Escape') close();
    else return;
    event.preventDefault();
  });

  return {
    open,
    close,
    /** Close without a word: the session itself is being left. */
    hide,
    isOpen,
    /** Read the checkpoints again and show the newest. */
    refresh: () => (isOpen() && sessionId ? load(sessionId, null) : Promise.resolve()),
    render: () => {
      if (!isOpen()) return;
      render();
      void showDetail();
    },
    /** While a run goes on nothing can be replayed. @param {boolean} running */
    setBusy(running) {
      busy = running;
      const item = chosen();
      for (const button of detail.querySelectorAll('.detail-actions button')) button.disabled = running;
      if (!running && item !== null && item.next.length === 0) detail.querySelectorAll('.detail-actions button')[1]?.toggleAttribute('disabled', true);
    },
  };
}

/** What a checkpoint is called: the nodes it follows, or where it came from. */
function titleOf({ nodes, source }) {
  const ran = nodes.filter((name) => !name.startsWith('__'));
  if (ran.length && source !== 'fork') return ran.map(nodeName).join(', ');
  return has(`checkpoints.source.${source}`) ? t(`checkpoints.source.${source}`) : source;
}

function nodeChips(names, item = null) {
  const shown = names.filter((name) => !name.startsWith('__'));
  if (!shown.length) return el('span', { text: item ? titleOf(item) : t('checkpoints.input') });
  return el('span', { class: 'chips' }, ...shown.map((name) => el('span', { class: 'chip', title: name, text: nodeName(name) })));
}

const fact = (key, value) => [el('dt', { t: key }), el('dd', {}, value)];

function messageRow(raw) {
  const message = readMessage(raw);
  const text = message.text.length > BRIEF ? `${message.text.slice(0, BRIEF)}…` : message.text;
  return el('li', { 'data-role': message.role },
    el('span', { class: 'role' }, el('span', { t: `role.${message.role}` }), message.role === 'tool' && message.name && el('span', { class: 'muted', text: ` · ${toolName(message.name)}` })),
    text && el('p', { text }),
    ...message.calls.map((call) => el('p', { class: 'call' }, el('span', { t: 'checkpoints.calls', p: { name: () => toolName(call.name) } }), el('code', { text: JSON.stringify(call.args) }))));
}

function stepButton(name, key, onClick) {
  return el('button', { class: 'icon-button', type: 'button', tLabel: key, tTitle: key, on: { click: onClick } }, icon(name));
}
