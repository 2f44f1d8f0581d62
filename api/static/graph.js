/** The agent's nodes in a row, lit as they run. */

import { bind, el, svg } from './dom.js';
import { duration, has, t } from './i18n.js';

const NODES = ['analyze_intent', 'execute_tools', 'respond'];

/** Edges drawn between nodes of the built-in graph; a node of another graph is joined to the one before it. */
const EDGES = [
  ['analyze_intent', 'execute_tools', 'along'],
  ['execute_tools', 'respond', 'along'],
  ['analyze_intent', 'respond', 'over'],
  ['execute_tools', 'analyze_intent', 'under'],
];

/** @typedef {'waiting'|'active'|'done'|'failed'|'stopped'|'asking'|'next'} State */

/** A node's name as people read it. @param {string} name */
export const nodeName = (name) => (has(`node.${name}`) ? t(`node.${name}`) : name);

/** A node as the row knows it: one inside a subgraph is named with its place. @param {{node: string, path?: string[]}} event */
export const placeOf = ({ node, path = [] }) => [...path, node].join(' / ');

/** @param {HTMLElement} root */
export function graphView(root) {
  const lines = svg('svg', { class: 'graph-lines', 'aria-hidden': 'true' });
  const row = el('ol', { class: 'graph-row' });
  const box = el('div', { class: 'graph-box' }, lines, row);
  root.replaceChildren(box);

  /** @type {Map<string, {item: HTMLElement, state: State, runs: number, last: {step: number, attempt: number}|null}>} */
  let nodes = new Map();
  /** @type {Map<string, SVGElement>} */
  let edges = new Map();
  /** Edges this run has gone along. @type {Set<string>} */
  let taken = new Set();
  /** @type {string[]} */
  let finished = [];

  function add(name) {
    const label = el('span', { class: 'node-name', title: name });
    if (has(`node.${name}`)) bind(label, 'text', `node.${name}`);
    else label.textContent = name;
    const item = el('li', { class: 'node', 'data-node': name },
      el('span', { class: 'node-mark', 'aria-hidden': 'true' }),
      el('span', { class: 'node-line' }, label, el('span', { class: 'node-runs' })),
      el('span', { class: 'node-line' }, el('span', { class: 'node-state' }), el('span', { class: 'node-ms' })));
    const node = { item, state: /** @type {State} */ ('waiting'), runs: 0, last: null };
    nodes.set(name, node);
    row.append(item);
    show(node, 'waiting');
    return node;
  }

  function show(node, state) {
    node.state = state;
    node.item.dataset.state = state;
    bind(node.item.querySelector('.node-state'), 'text', `state.${state}`);
  }

  function reset() {
    nodes = new Map();
    taken = new Set();
    finished = [];
    row.replaceChildren();
    NODES.forEach(add);
    draw();
  }

  function draw() {
    const width = row.offsetWidth;
    if (width === 0) return;
    lines.setAttribute('width', String(width));
    lines.setAttribute('height', String(box.offsetHeight));
    edges = new Map();
    lines.replaceChildren(arrowHeads());
    const names = [...nodes.keys()].filter((name) => !nodes.get(name).item.hidden);
    const wanted = EDGES.filter(([from, to]) => names.includes(from) && names.includes(to));
    names.forEach((name, at) => {
      if (at > 0 && !NODES.includes(name)) wanted.push([names[at - 1], name, 'along']);
    });
    for (const [from, to, way] of wanted) {
      const path = svg('path', { d: route(nodes.get(from).item, nodes.get(to).item, way), class: `edge ${way}${taken.has(`${from}>${to}`) ? ' taken' : ''}`, 'marker-end': 'url(#arrow)' });
      edges.set(`${from}>${to}`, path);
      lines.append(path);
    }
  }

  /** @param {{node: string, path?: string[], status: string, step?: number, ms?: number}} event @param {number} attempt */
  function note(event, attempt) {
    const { status, step = 0, ms } = event;
    const name = placeOf(event);
    const known = nodes.has(name);
    const node = nodes.get(name) ?? add(name);
    node.item.hidden = false;
    if (!known) draw();
    if (status === 'started') {
      // After a restart the same step begins again: that is one run, not two.
      const again = node.last !== null && node.last.step === step && node.last.attempt !== attempt;
      if (!again) node.runs += 1;
      node.last = { step, attempt };
      for (const from of finished) {
        taken.add(`${from}>${name}`);
        edges.get(`${from}>${name}`)?.classList.add('taken');
      }
      show(node, 'active');
      node.item.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    } else {
      show(node, status === 'failed' ? 'failed' : 'done');
      finished = [name];
      if (typeof ms === 'number') node.item.querySelector('.node-ms').textContent = duration(ms);
    }
    if (node.runs > 1) bind(node.item.querySelector('.node-runs'), 'text', 'graph.times', { n: node.runs });
  }

  /** The run ended: what was still running is so no longer. @param {'success'|'interrupted'|'cancelled'|'error'} status */
  function settle(status) {
    const left = { success: 'done', interrupted: 'asking', cancelled: 'stopped', error: 'failed' }[status] ?? 'stopped';
    for (const node of nodes.values()) if (node.state === 'active') show(node, /** @type {State} */ (left));
    hideStrangers();
  }

  /** A run of another graph touches none of our nodes: then they are not shown. */
  function hideStrangers() {
    const touched = (name) => nodes.get(name).state !== 'waiting';
    if (NODES.some(touched) || nodes.size === NODES.length) return;
    for (const name of NODES) nodes.get(name).item.hidden = true;
    draw();
  }

  /** Show one checkpoint: what had just run, and what comes next. @param {string[]} ran @param {string[]} next */
  function mark(ran, next) {
    reset();
    for (const name of [...ran, ...next]) if (!name.startsWith('__') && !nodes.has(name)) add(name);
    for (const name of ran) if (nodes.has(name)) show(nodes.get(name), 'done');
    for (const name of next) if (nodes.has(name)) show(nodes.get(name), 'next');
    hideStrangers();
    draw();
  }

  new ResizeObserver(draw).observe(row);
  reset();
  return { reset, note, settle, mark };
}

function arrowHeads() {
  const head = svg('path', { d: 'M0 0L7 3.5L0 7z', class: 'arrow' });
  const marker = { id: 'arrow', viewBox: '0 0 7 7', refX: 6, refY: 3.5, markerWidth: 7, markerHeight: 7, markerUnits: 'userSpaceOnUse', orient: 'auto' };
  return svg('defs', {}, svg('marker', marker, head));
}

/** The path of an edge between two nodes: along the row, over it or under it. */
function route(from, to, way) {
  const middle = (node) => node.offsetLeft + node.offsetWidth / 2;
  const top = from.offsetTop;
  const bottom = top + from.offsetHeight;
  if (way === 'along') return `M${from.offsetLeft + from.offsetWidth + 3} ${(top + bottom) / 2}H${to.offsetLeft - 3}`;
  const [x, y] = [middle(from), middle(to)];
  const [edge, peak] = way === 'over' ? [top - 2, top - 12] : [bottom + 2, bottom + 12];
  const inset = Math.sign(y - x) * 10;
  return `M${x + inset} ${edge}C${x + inset} ${peak} ${x + inset} ${peak} ${x + inset * 2.2} ${peak}`
    + `H${y - inset * 2.2}C${y - inset} ${peak} ${y - inset} ${peak} ${y - inset} ${edge}`;
}
