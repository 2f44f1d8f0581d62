/** A turn as it is shown: its message, what ran, what was said, what it cost; from the state, the checkpoints and the runs. */
import type { DocumentMessage } from '../api/own';
import type { Checkpoint, RawMessage, ToolCall } from '../api/types';
import type { Chip } from '../ui/Cards';
import { readJson, readMessage, turnsOf, type Message } from './messages';
import type { Intent, RunView, ToolRun } from './run';
import { replyChoices, saidChoices, type Choice, type Segment, type Tree } from './tree';

export interface Shown {
  key: string;
  user: Message | null;
  /** Where the user's message stands among all messages. */
  place: number;
  items: ({ kind: 'text'; id: string; text: string; open: boolean } | { kind: 'tool'; id: string; tool: ToolRun })[];
  chips: Chip[];
  intent: Intent | null;
  run: RunView | null;
  segment: Segment | null;
  runId: string | null;
  last: Checkpoint | null;
  tokens: number | null;
  cost: number | null;
  ms: number | null;
  status: string | null;
  text: string;
}

export interface Given {
  messages: readonly RawMessage[];
  segments: readonly Segment[];
  documented: ReadonlyMap<string, DocumentMessage>;
  runs: ReadonlyMap<string, RunView>;
  run: RunView | null;
  intent: unknown;
  /** Of a recording: the runs that have been played, by the message each answered. */
  views?: ReadonlyMap<string, RunView> | undefined;
}

export function shownTurns({ messages, segments, documented, runs, run, intent, views }: Given): Shown[] {
  const turns = turnsOf(messages.map(readMessage));
  const live = run?.status === 'running';
  // Turns and segments are counted from the newest: what retention has taken is missing at the front.
  // A turn that has just begun has no checkpoints read yet.
  const known = run?.runId !== undefined && segments.some(({ input, steps }) => input.run_id === run?.runId || steps.some((step) => step.run_id === run?.runId));
  const shift = live && !known && turns.length > segments.length ? 1 : 0;
  const places = new Map(messages.map((message, place) => [readMessage(message), place]));
  return turns.map((turn, n) => {
    const newest = n === turns.length - 1;
    const segment = segments[segments.length - turns.length + n + shift] ?? null;
    const last = segment?.steps.at(-1) ?? segment?.input ?? null;
    const own = newest && run ? run : null;
    const runId = own?.runId ?? last?.run_id ?? null;
    const view = own ?? views?.get(turn.key) ?? (runId ? runs.get(runId) ?? null : null);
    const document = runId && !live ? documented.get(runId) : undefined;
    const items = itemsOf(turn.rest, view);
    const said = document && !items.some(({ kind }) => kind === 'text') && document.content ? [...items, { kind: 'text' as const, id: `${runId}-said`, text: document.content, open: false }] : items;
    return {
      key: turn.key, user: turn.user, place: turn.user ? places.get(turn.user) ?? 0 : 0, items: said, segment, last, runId, run: view,
      chips: view?.nodes.length ? view.nodes.map(chipOf) : segment && !(newest && live) ? oldChips(segment) : [],
      intent: view?.intent ?? (newest && !live ? intentOf(intent) : null),
      tokens: numberOf(document?.metadata.tokens) ?? sumOf(turn.rest, ({ usage }) => usage?.total_tokens),
      cost: numberOf(document?.metadata.cost) ?? sumOf(turn.rest, ({ cost }) => cost),
      ms: view?.to ? view.to - view.from : segment && last ? lasted(segment, last) : null,
      status: typeof document?.metadata.status === 'string' ? document.metadata.status : null,
      text: said.map((item) => (item.kind === 'text' ? item.text : '')).filter(Boolean).join('\n\n'),
    };
  });
}

/** From the first to the last checkpoint of the run that answered: another one may have come long after the message. */
function lasted({ input, steps }: Segment, last: Checkpoint): number {
  const first = [input, ...steps].find(({ run_id: id }) => id === last.run_id) ?? input;
  return Date.parse(last.created_at) - Date.parse(first.created_at);
}

const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null);

function sumOf(messages: Message[], what: (message: Message) => number | null | undefined): number | null {
  const known = messages.map(what).filter((one) => typeof one === 'number');
  return known.length ? known.reduce((sum, one) => sum + one, 0) : null;
}

function intentOf(value: unknown): Intent | null {
  const { kind, confidence, language } = (value ?? {}) as Record<string, unknown>;
  return typeof kind === 'string' ? { kind, confidence: Number(confidence), language: String(language ?? 'en') } : null;
}

function itemsOf(messages: Message[], run: RunView | null): Shown['items'] {
  const answers = new Map(messages.filter(({ callId }) => callId).map((message) => [message.callId, message]));
  const told = new Map(run?.tools.map((tool) => [tool.id, tool]) ?? []);
  const items: Shown['items'] = [];
  messages.forEach((message, n) => {
    if (message.role !== 'assistant') return;
    const open = !!message.id && (run?.open.has(message.id) ?? false);
    if (message.text !== '') items.push({ kind: 'text', id: message.id ?? `text-${n}`, text: message.text, open });
    for (const call of message.calls) items.push({ kind: 'tool', id: call.id, tool: told.get(call.id) ?? toolOf(call, answers.get(call.id) ?? null, run) });
  });
  return items;
}

function toolOf(call: ToolCall, answer: Message | null, run: RunView | null): ToolRun {
  const state = answer ? (answer.failed ? 'failed' : 'done') : run?.status === 'running' ? 'active' : 'stopped';
  const result = answer && !answer.failed ? answer.artifact ?? readJson(answer.text) : null;
  return { id: call.id, name: call.name, args: call.args, state, result, error: answer?.failed ? answer.text : null, ms: null, cached: false };
}

const chipOf = (node: RunView['nodes'][number]): Chip => ({
  node: node.node, path: node.path, state: node.state, ms: node.to === null ? null : node.to - node.from, error: node.error,
  firstToken: node.firstToken === null ? null : node.firstToken - node.from,
  rate: node.firstToken !== null && node.to !== null && node.to > node.firstToken ? node.tokens / ((node.to - node.firstToken) / 1000) : null,
});

/** Of a turn long past: the nodes its checkpoints name, each as long as it took to the next checkpoint. */
function oldChips({ input, steps }: Segment): Chip[] {
  let before = input;
  return steps.flatMap((step) => {
    const ms = Date.parse(step.created_at) - Date.parse(before.created_at);
    before = step;
    return step.source === 'loop' ? step.nodes.filter((node) => !node.startsWith('__')).map((node) => ({ node, path: node, state: 'done' as const, ms })) : [];
  });
}

export interface Choices { said: Choice; reply: Choice }
export const choicesOf = (tree: Tree, segment: Segment): Choices => ({ said: saidChoices(tree, segment), reply: replyChoices(tree, segment) });
