/**
 * A small, safe Markdown: headings, paragraphs, lists, quotes, code, bold and links.
 *
 * It builds elements and sets their text. Nothing a model writes is ever parsed as HTML, and a link leads to http(s) only.
 */

import { el, icon } from './dom.js';

const FENCE = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.+?)\s*#*$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;

/** Quotes and lists nest this deep; what lies deeper is shown as it is written. */
const DEEPEST = 8;

/** @param {string} source @returns {DocumentFragment} */
export function markdown(source) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(source.replace(/\r\n?/g, '\n').split('\n')));
  return fragment;
}

/** @param {string[]} lines @returns {Node[]} */
function blocks(lines, depth = 0) {
  const out = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (line.trim() === '') at += 1;
    else if (FENCE.test(line)) at = code(lines, at, out);
    else if (HEADING.test(line)) at = heading(line, at, out);
    else if (depth < DEEPEST && QUOTE.test(line)) at = quote(lines, at, out, depth + 1);
    else if (depth < DEEPEST && ITEM.test(line)) at = list(lines, at, out, depth + 1);
    else at = paragraph(lines, at, out);
  }
  return out;
}

const startsBlock = (line) => [FENCE, HEADING, QUOTE, ITEM].some((rule) => rule.test(line));

function code(lines, at, out) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const body = [];
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(fence)) body.push(lines[end++]);
  out.push(codeBlock(body.join('\n'), language));
  return end + 1;
}

function codeBlock(text, language) {
  const copy = el('button', {
    class: 'icon-button small', type: 'button', tLabel: 'page.copy', tTitle: 'page.copy', on: { click: () => copyText(text, copy) },
  }, icon('copy'));
  return el('div', { class: 'code' },
    el('div', { class: 'code-head' }, el('span', { text: language }), copy),
    el('pre', { tabindex: '0' }, el('code', { text })));
}

function heading(line, at, out) {
  const [, marks, text] = HEADING.exec(line);
  out.push(el(marks.length <= 2 ? 'h3' : 'h4', {}, ...inline(text)));
  return at + 1;
}

function quote(lines, at, out, depth) {
  const inner = [];
  while (at < lines.length && QUOTE.test(lines[at])) inner.push(QUOTE.exec(lines[at++])[1]);
  out.push(el('blockquote', {}, ...blocks(inner, depth)));
  return at;
}

function list(lines, at, out, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const node = el(ordered ? 'ol' : 'ul', { start: ordered && parseInt(mark, 10) !== 1 ? String(parseInt(mark, 10)) : null });
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length > indent.length + 1 || /\d/.test(item[2]) !== ordered) break;
    if (item[1].length < indent.length) break;
    const inner = [];
    for (at += 1; at < lines.length; at += 1) {
      const deeper = /^\s+/.exec(lines[at])?.[0].length > indent.length + 1;
      if (lines[at].trim() === '' ? !/^\s{2,}\S/.test(lines[at + 1] ?? '') : !deeper) break;
      inner.push(lines[at].slice(Math.min(indent.length + 2, lines[at].length - lines[at].trimStart().length)));
    }
    node.append(el('li', {}, ...inline(item[3]), ...blocks(inner, depth)));
    if (lines[at]?.trim() === '' && ITEM.test(lines[at + 1] ?? '')) at += 1;
  }
  out.push(node);
  return at;
}

function paragraph(lines, at, out) {
  const node = el('p');
  const from = at;
  while (at < lines.length && lines[at].trim() !== '' && (at === from || !startsBlock(lines[at]))) {
    if (at > from) node.append(el('br'));
    node.append(...inline(lines[at].trim()));
    at += 1;
  }
  out.push(node);
  return at;
}

const INLINE = /(`+)(.+?)\1(?!`)|\*\*(?=\S)(.+?)(?<=\S)\*\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+(?:\([^\s()]*\)[^\s()]*)*)\)|(https?:\/\/[^\s<>"'`*]+)/g;

/** @param {string} text @returns {Node[]} */
function inline(text) {
  const out = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, , codeText, bold, label, address, bare] = match;
    out.push(document.createTextNode(text.slice(at, match.index)));
    at = match.index + whole.length;
    if (codeText !== undefined) out.push(el('code', { text: codeText.replace(/^ (.+) $/, '$1') }));
    else if (bold !== undefined) out.push(el('strong', {}, ...inline(bold)));
    else if (address !== undefined) out.push(link(address, label));
    else at -= bareLink(bare, out);
  }
  out.push(document.createTextNode(text.slice(at)));
  return out.filter((node) => node.nodeType !== Node.TEXT_NODE || node.data !== '');
}

/** A bare address; the punctuation that ends a sentence is not part of it. @returns {number} characters given back */
function bareLink(bare, out) {
  const address = bare.replace(/[.,;:!?)\]}。，、]+$/u, (tail) => (tail.startsWith(')') && bare.includes('(') ? ')' : ''));
  out.push(link(address, address));
  return bare.length - address.length;
}

/** A link that opens apart from this page. Anything but http(s) stays plain text. @param {string} address @param {string} label */
export function link(address, label) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null || !['http:', 'https:'].includes(url.protocol)) return document.createTextNode(label);
  return el('a', { href: url.href, target: '_blank', rel: 'noopener noreferrer', text: label });
}

/** @param {string} text @param {HTMLElement} button shows a tick when it is done */
export async function copyText(text, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyOldWay(text);
  button.replaceChildren(icon('check'));
  setTimeout(() => button.replaceChildren(icon('copy')), 1500);
}

/** Without https the clipboard is closed to pages, but a selection can be copied. */
function copyOldWay(text) {
  const area = el('textarea', { class: 'hidden', text });
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}
