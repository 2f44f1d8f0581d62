/** A tool call as a card: what was asked, what came back, how long it took. */

import { el, icon } from './dom.js';
import { duration, has, number, t } from './i18n.js';
import { jsonTree } from './json.js';
import { link } from './markdown.js';

/**
 * @typedef {object} Call
 * @property {string} id
 * @property {string} name
 * @property {'started'|'finished'|'failed'|'stopped'} status
 * @property {any} [args]
 * @property {any} [result]
 * @property {string} [error]
 * @property {number} [ms]
 * @property {boolean} [cached]
 */

const STATES = { started: 'running', finished: 'done', failed: 'failed', stopped: 'stopped' };

/** @param {string} name */
export const toolName = (name) => (has(`tool.${name}`) ? t(`tool.${name}`) : name);

/** @param {Call} call @returns {HTMLElement} */
export function toolCard(call) {
  const state = STATES[call.status] ?? 'running';
  const known = has(`tool.${call.name}`);
  return el('article', { class: 'tool', 'data-tool': call.name, 'data-state': state },
    el('header', { class: 'tool-head' },
      el('span', { class: 'tool-icon' }, icon(call.name)),
      el('span', { class: 'tool-name', ...(known ? { t: `tool.${call.name}` } : { text: call.name }) }),
      el('span', { class: 'tool-args', text: brief(call.args) }),
      el('span', { class: 'tool-facts' },
        call.cached && el('span', { class: 'chip', t: 'tool.cached' }),
        typeof call.ms === 'number' && el('span', { class: 'tool-ms', text: duration(call.ms) }),
        el('span', { class: `chip state ${state}`, t: `tool.${state}` }))),
    ...outcome(call),
    details(call));
}

/** Arguments in one line: the value alone where there is one. */
function brief(args) {
  if (args === null || typeof args !== 'object') return args === undefined ? '' : String(args);
  const entries = Object.entries(args);
  const shown = ([, value]) => (typeof value === 'string' ? value : JSON.stringify(value));
  if (entries.length === 1) return shown(entries[0]);
  return entries.map((entry) => `${entry[0]}: ${shown(entry)}`).join(', ');
}

function outcome(call) {
  if (call.status === 'failed') return [el('p', { class: 'tool-error', text: call.error ?? '' })];
  if (call.status !== 'finished') return [];
  const { result } = call;
  if (result === null || typeof result !== 'object') {
    return result === undefined ? [] : [el('p', { class: 'tool-result', text: String(result) })];
  }
  const read = READERS[call.name];
  const node = read ? read(result) : null;
  return node ? [node] : [];
}

const READERS = {
  calculator({ expression, result, unit }) {
    if (expression === undefined || result === undefined) return null;
    return el('p', { class: 'tool-result' }, `${expression} = `, el('strong', { text: unit ? `${result} ${unit}` : String(result) }));
  },
  weather(result) {
    if (typeof result.temperature_c !== 'number') return null;
    const place = [result.place, result.country].filter(Boolean).join(', ');
    const more = [
      typeof result.feels_like_c === 'number' && el('span', { t: 'tool.feels', p: { t: number(result.feels_like_c) } }),
      typeof result.humidity_percent === 'number' && el('span', { t: 'tool.humidity', p: { n: result.humidity_percent } }),
      typeof result.wind_kmh === 'number' && el('span', { t: 'tool.wind', p: { n: result.wind_kmh } }),
    ].filter(Boolean);
    return el('div', { class: 'tool-result weather' },
      el('p', {}, `${place} · `, el('strong', { text: `${number(result.temperature_c)} °C` }), result.condition ? ` · ${result.condition}` : ''),
      el('p', { class: 'muted separated' }, ...more),
      Array.isArray(result.days) && result.days.length > 0 && el('ul', { class: 'days' }, ...result.days.map(day)));
  },
  search({ results, provider }) {
    if (!Array.isArray(results)) return null;
    return el('div', { class: 'tool-result' },
      el('p', { class: 'muted separated' }, el('span', { t: 'tool.results', p: { n: results.length } }), el('span', { text: provider ?? '' })),
      el('ul', { class: 'hits' }, ...results.map((hit) => el('li', {},
        link(String(hit.url ?? ''), String(hit.title ?? hit.url ?? '')),
        hit.snippet && el('p', { class: 'muted', text: hit.snippet })))));
  },
};

function day({ date, min_c: low, max_c: high, condition }) {
  return el('li', {},
    el('span', { class: 'muted', text: date }),
    el('span', { text: `${number(low)} – ${number(high)} °C` }),
    el('span', { class: 'muted', text: condition ?? '' }));
}

function details(call) {
  const asked = call.args !== undefined && Object.keys(call.args ?? {}).length > 0;
  const answered = call.result !== null && typeof call.result === 'object';
  if (!asked && !answered) return null;
  return el('details', { class: 'tool-details' },
    el('summary', { t: answered ? 'tool.details' : 'tool.args' }),
    asked && el('h4', { t: 'tool.args' }), asked && jsonTree(call.args, { open: true }),
    answered && el('h4', { t: 'tool.result' }), answered && jsonTree(call.result, { open: true }));
}
