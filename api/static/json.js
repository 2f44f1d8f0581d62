/** A JSON value as a tree that opens branch by branch; a branch is built when it is first opened. */

import { el } from './dom.js';

const PAGE = 100;

/** @param {any} value @param {{name?: string, open?: boolean}} [options] @returns {HTMLElement} */
export function jsonTree(value, { name, open = false } = {}) {
  if (value === null || typeof value !== 'object') return el('div', { class: 'json-leaf' }, label(name), scalar(value));
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  const size = el('span', { class: 'json-size', t: list ? 'json.items' : 'json.fields', p: { n: entries.length } });
  const body = el('div', { class: 'json-body' });
  const node = el('details', { class: 'json-branch', open }, el('summary', {}, label(name), size), body);
  const fill = () => { if (node.open && !body.hasChildNodes()) grow(body, entries, 0); };
  node.addEventListener('toggle', fill);
  fill();
  return node;
}

function grow(body, entries, from) {
  body.append(...entries.slice(from, from + PAGE).map(([name, value]) => jsonTree(value, { name })));
  const left = entries.length - from - PAGE;
  if (left <= 0) return;
  const more = el('button', { class: 'button small', type: 'button', t: 'json.more', p: { n: left } });
  more.addEventListener('click', () => { more.remove(); grow(body, entries, from + PAGE); });
  body.append(more);
}

const label = (name) => name !== undefined && el('span', { class: 'json-name', text: name });

function scalar(value) {
  const kind = value === null ? 'null' : typeof value;
  return el('span', { class: `json-value ${kind}`, text: JSON.stringify(value) });
}
