/** Elements, icons and bound texts. Text reaches the page as text only: nothing here parses HTML. */

import { t } from './i18n.js';

/** What a bound element shows: attribute (or `text`) → [key, params]. @type {WeakMap<Element, Map<string, [string, object]>>} */
const bound = new WeakMap();

const ATTRIBUTES = { t: 'text', tLabel: 'aria-label', tTitle: 'title', tPlaceholder: 'placeholder' };

/**
 * Make an element. `t`, `tLabel`, `tTitle` and `tPlaceholder` bind a text key, `p` its parameters, `on` listeners.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined|false)} children
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || name === 'p') continue;
    if (name in ATTRIBUTES) bind(node, ATTRIBUTES[name], value, props.p);
    else if (name === 'on') for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === 'text') node.textContent = value;
    else if (name === 'class') node.className = value;
    else if (typeof value === 'boolean') node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * Show a key's text in an element, now and after the language changes.
 * @param {Element} node
 * @param {string} where `text` or an attribute
 * @param {string} key
 * @param {Record<string, string|number|(() => string)>} [params]
 */
export function bind(node, where, key, params = {}) {
  const texts = bound.get(node) ?? new Map();
  texts.set(where, [key, params]);
  bound.set(node, texts);
  node.setAttribute('data-bound', '');
  show(node, where, key, params);
}

function show(node, where, key, params) {
  if (where === 'text') node.textContent = t(key, params);
  else node.setAttribute(where, t(key, params));
}

/** Bind the keys and icons written in the page's own HTML. @param {ParentNode} root */
export function adopt(root) {
  for (const [data, where] of [['t', 'text'], ['tLabel', 'aria-label'], ['tPlaceholder', 'placeholder']]) {
    const name = `data-${data.replace('L', '-l').replace('P', '-p')}`;
    for (const node of root.querySelectorAll(`[${name}]`)) bind(node, where, node.dataset[data]);
  }
  for (const node of root.querySelectorAll('[data-icon]')) node.append(icon(node.dataset.icon));
}

/** Show every bound text again, in the language chosen now. */
export function translate() {
  for (const node of document.querySelectorAll('[data-bound]')) {
    for (const [where, [key, params]] of bound.get(node) ?? []) show(node, where, key, params);
  }
}

/** @template {HTMLElement} E @param {string} id @returns {E} */
export const byId = (id) => /** @type {any} */ (document.getElementById(id));

const SVG = 'http://www.w3.org/2000/svg';

const ICONS = {
  plus: ['M12 5v14', 'M5 12h14'],
  close: ['M6 6l12 12', 'M18 6L6 18'],
  menu: ['M4 7h16', 'M4 12h16', 'M4 17h16'],
  history: ['M4 12a8 8 0 1 0 2.6-5.9', 'M4 4v4h4', 'M12 8v4.5l3 1.8'],
  up: ['M12 19V5', 'M6 11l6-6 6 6'],
  down: ['M12 5v14', 'M6 13l6 6 6-6'],
  left: ['M15 5l-7 7 7 7'],
  right: ['M9 5l7 7-7 7'],
  stop: ['M7.5 7.5h9v9h-9z'],
  trash: ['M5 7h14', 'M9.5 7V4.5h5V7', 'M7 7l.8 12.5h8.4L17 7', 'M10.2 10.5v5.5', 'M13.8 10.5v5.5'],
  copy: ['M9 9h10v10H9z', 'M15 9V5H5v10h4'],
  check: ['M5 12.5l4.5 4.5L19 7.5'],
  alert: ['M12 4.5l8.5 15h-17z', 'M12 10v4.2', 'M12 16.8v.2'],
  film: ['M4 6h16v12H4z', 'M10.3 9.4v5.2l4.2-2.6z'],
  play: ['M8 5.5v13l10.5-6.5z'],
  again: ['M19 12a7 7 0 1 1-2.2-5.1', 'M19 4v4h-4'],
  hand: ['M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z', 'M9.6 9.6a2.4 2.4 0 1 1 3.4 2.2c-.7.3-1 .8-1 1.6', 'M12 16.3v.2'],
  spark: ['M12 4v4', 'M12 16v4', 'M4 12h4', 'M16 12h4', 'M6.5 6.5l2.6 2.6', 'M14.9 14.9l2.6 2.6', 'M6.5 17.5l2.6-2.6', 'M14.9 9.1l2.6-2.6'],
  calculator: ['M6 3.5h12v17H6z', 'M9 7.5h6', 'M9 12h.1', 'M12 12h.1', 'M15 12h.1', 'M9 16h.1', 'M12 16h.1', 'M15 16h.1'],
  weather: ['M7.5 18.5h9a3.8 3.8 0 0 0 .6-7.5 5.3 5.3 0 0 0-10.2 1.2A3.2 3.2 0 0 0 7.5 18.5z'],
  search: ['M10.8 4.5a6.3 6.3 0 1 0 0 12.6 6.3 6.3 0 0 0 0-12.6z', 'M15.5 15.5l4.5 4.5'],
  tool: ['M14.5 6.5a4 4 0 0 0-5 5L4 17l3 3 5.5-5.5a4 4 0 0 0 5-5l-2.5 2.5-3-3z'],
  chat: ['M4.5 5.5h15v10.5h-8L7 19.5v-3.5H4.5z'],
};

/** An inline icon, hidden from screen readers: the text beside it or a label says what it means. @param {string} name */
export function icon(name) {
  const paths = (ICONS[name] ?? ICONS.tool).map((d) => svg('path', { d }));
  return svg('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true' }, ...paths);
}

/** @param {string} tag @param {Record<string, string|number>} attributes @param {...Node} children */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** Say something to screen readers, without moving the focus. @param {string} text */
export function announce(text) {
  byId('announcer').textContent = text;
}

let toastTimer = 0;

/** Show a short notice that leaves by itself. @param {string} text */
export function toast(text) {
  const box = byId('toast');
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, 6000);
}
