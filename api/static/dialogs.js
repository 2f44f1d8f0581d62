/** The two questions the page asks in a dialog: is this to be deleted, and what is the API key. */

import { el } from './dom.js';

/**
 * Show a dialog until it is answered.
 * @param {Node[]} content
 * @param {HTMLButtonElement} yes
 * @returns {Promise<boolean>} false where it was cancelled or closed by Escape
 */
function ask(content, yes) {
  const no = el('button', { class: 'button', type: 'submit', value: 'no', t: 'page.cancel', formnovalidate: true });
  const form = el('form', { method: 'dialog' }, ...content, el('div', { class: 'dialog-actions' }, no, yes));
  const dialog = el('dialog', { class: 'dialog', 'aria-labelledby': 'dialog-title' }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
    dialog.showModal();
  });
}

const heading = (key) => el('h2', { id: 'dialog-title', t: key });
const button = (style, key) => el('button', { class: `button ${style}`, type: 'submit', value: 'yes', t: key });

/** @param {string} title */
export function confirmDelete(title) {
  const text = el('p', { t: 'sessions.delete.text', p: { title } });
  return ask([heading('sessions.delete.title'), text], button('danger', 'sessions.delete.yes'));
}

/** @type {Promise<string|null>|null} */
let asking = null;

/** Ask for the key; requests refused at the same time share one question. @param {boolean} wrong the last key was refused */
export function askKey(wrong) {
  asking ??= askOnce(wrong).finally(() => { asking = null; });
  return asking;
}

async function askOnce(wrong) {
  const input = el('input', {
    id: 'api-key', type: 'password', autocomplete: 'off', required: true, autofocus: true, spellcheck: 'false',
  });
  const agreed = await ask([
    heading('key.title'),
    el('p', { t: 'key.text' }),
    wrong && el('p', { class: 'wrong', role: 'alert', t: 'key.wrong' }),
    el('label', { for: 'api-key', t: 'key.label' }),
    input,
  ].filter(Boolean), withDefault(button('primary', 'key.send'), input));
  return agreed ? input.value.trim() || null : null;
}

/** Enter in the field presses this button, although Cancel comes first in the form. */
function withDefault(yes, input) {
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.isComposing) return;
    event.preventDefault();
    yes.click();
  });
  return yes;
}
