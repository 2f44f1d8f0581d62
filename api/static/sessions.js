/** The list of conversations at the left, newest first. */

import * as api from './api.js';
import { confirmDelete } from './dialogs.js';
import { el, icon, bind } from './dom.js';
import { ago, t } from './i18n.js';

const PAGE = 30;
const MOST = 500;

/**
 * @param {{list: HTMLElement, note: HTMLElement, more: HTMLButtonElement}} parts
 * @param {{onDeleted: (id: string) => void, onChange: () => void, onError: (error: any) => void}} actions
 */
export function sessionList({ list, note, more }, { onDeleted, onChange, onError }) {
  /** @type {any[]} */
  let items = [];
  let loaded = false;
  /** @type {string|null} */
  let next = null;
  /** @type {string|null} */
  let current = null;
  let asked = 0;

  /** Read the list again, as far as it is shown. */
  async function refresh() {
    const turn = ++asked;
    try {
      const page = await api.sessions({ limit: Math.min(MOST, Math.max(PAGE, items.length)) });
      if (turn !== asked) return;
      ({ items, next } = page);
      loaded = true;
      render();
      onChange();
    } catch {
      if (turn !== asked) return;
      bind(note, 'text', 'sessions.failed');
      note.hidden = false;
    }
  }

  async function showMore() {
    more.disabled = true;
    try {
      const page = await api.sessions({ before: next, limit: PAGE });
      const known = new Set(items.map((item) => item.session_id));
      const first = page.items.find((item) => !known.has(item.session_id));
      items = [...items, ...page.items.filter((item) => !known.has(item.session_id))];
      next = page.next;
      render();
      if (first) rowOf(first.session_id)?.querySelector('a')?.focus();
    } catch (error) {
      onError(error);
    } finally {
      more.disabled = false;
    }
  }

  const rowOf = (id) => [...list.children].find((row) => row.getAttribute('data-session') === id);

  function render() {
    const focused = document.activeElement?.closest('[data-session]')?.getAttribute('data-session');
    list.replaceChildren(...items.map(row));
    if (focused) rowOf(focused)?.querySelector('a')?.focus();
    more.hidden = !next;
    bind(note, 'text', 'sessions.none');
    note.hidden = !loaded || items.length > 0;
  }

  function row(item) {
    const title = item.title || t('sessions.untitled');
    const now = { interrupted: 'sessions.waiting', busy: 'sessions.busy' }[item.status];
    const life = item.live ? 'sessions.live' : 'sessions.kept';
    const link = el('a', { class: 'session', href: `#s=${encodeURIComponent(item.session_id)}`, 'aria-current': item.session_id === current ? 'page' : null },
      el('span', { class: `dot ${item.live ? 'live' : ''}`, tTitle: life }, el('span', { class: 'hidden', t: life })),
      el('span', { class: 'session-title', text: title }),
      el('span', { class: 'session-facts separated' },
        now && el('span', { class: item.status, t: now }),
        !now && el('span', { text: ago(item.updated_at) }),
        !now && typeof item.turns === 'number' && el('span', { t: 'sessions.turns', p: { n: item.turns } })));
    const remove = el('button', {
      class: 'icon-button small delete', type: 'button', tLabel: 'sessions.delete', p: { title }, on: { click: () => askRemove(item, title) },
    }, icon('trash'));
    return el('li', { 'data-session': item.session_id }, link, remove);
  }

  async function askRemove(item, title) {
    if (!(await confirmDelete(title))) return;
    try {
      await api.removeSession(item.session_id);
    } catch (error) {
      if (error.kind !== 'missing') return void onError(error);
    }
    items = items.filter((other) => other !== item);
    render();
    onDeleted(item.session_id);
    void refresh();
  }

  more.addEventListener('click', showMore);
  return {
    refresh,
    render,
    /** @param {string|null} id */
    select(id) {
      current = id;
      for (const link of list.querySelectorAll('a')) link.removeAttribute('aria-current');
      if (id !== null) rowOf(id)?.querySelector('a')?.setAttribute('aria-current', 'page');
    },
    /** @param {string|null} id */
    find: (id) => items.find((item) => item.session_id === id) ?? null,
  };
}
