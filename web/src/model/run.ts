/** One run as its frames tell it. Every frame gives a new view; the same frames give the same view, however they came. */
import type { Frame } from '../api/sse';
import type { Interrupt, RawMessage, ToolCall, Usage } from '../api/types';

export interface NodeRun { task: string; node: string; path: string; state: 'active' | 'done' | 'failed' | 'stopped' | 'asking'; from: number; to: number | null; error: string | null; firstToken: number | null; tokens: number }
export interface ToolRun { id: string; name: string; args: unknown; state: 'active' | 'done' | 'failed' | 'stopped'; result: unknown; error: string | null; ms: number | null; cached: boolean }
export interface Intent { kind: string; confidence: number; language: string }
export interface RawEvent { n: number; id: string | null; event: string; data: unknown; at: number }
export interface RunFailure { name: string; message: string; node: string | null }

export interface RunView {
  runId: string | null;
  attempt: number;
  status: 'running' | 'done' | 'failed' | 'stopped' | 'asking';
  from: number;
  to: number | null;
  firstToken: number | null;
  lastId: string | null;
  nodes: NodeRun[];
  tools: ToolRun[];
  intent: Intent | null;
  messages: RawMessage[];
  open: ReadonlySet<string>;
  custom: { at: number; data: unknown }[];
  interrupts: Interrupt[];
  failure: RunFailure | null;
  events: RawEvent[];
  dropped: number;
}

const KEPT_EVENTS = 3000;

export const newRun = (runId: string | null = null, now = Date.now()): RunView => ({
  runId, attempt: 0, status: 'running', from: now, to: null, firstToken: null, lastId: null, nodes: [], tools: [], intent: null,
  messages: [], open: new Set(), custom: [], interrupts: [], failure: null, events: [], dropped: 0,
});

type Data = Record<string, unknown>;

export function withFrame(run: RunView, frame: Frame, now = Date.now()): RunView {
  const next: RunView = { ...run, lastId: frame.id ?? run.lastId, events: [...run.events, { n: run.dropped + run.events.length + 1, id: frame.id, event: frame.event, data: frame.data, at: now }] };
  if (next.events.length > KEPT_EVENTS) {
    next.dropped += next.events.length - KEPT_EVENTS;
    next.events = next.events.slice(-KEPT_EVENTS);
  }
  const [kind = '', ...place] = frame.event.split('|');
  const data = frame.data;
  if (kind === 'messages' && Array.isArray(data)) return heard(next, data[0] as RawMessage, (data[1] ?? {}) as Data, now);
  if (data === null || typeof data !== 'object') return next;
  if (kind === 'metadata') return begun(next, data as Data);
  if (kind === 'tasks') return worked(next, data as Data, place, now);
  if (kind === 'custom') return told(next, data as Data, now);
  if (kind === 'updates') return asked(next, data as Data);
  if (kind === 'error') return failed(next, data as Data);
  return next;
}

/** The run after its stream has ended. */
export function ended(run: RunView, now = Date.now(), stopped = false): RunView {
  const waits = run.interrupts.length > 0;
  const status = run.failure ? 'failed' : stopped ? 'stopped' : waits ? 'asking' : 'done';
  const left = status === 'failed' ? 'failed' : status === 'stopped' ? 'stopped' : status === 'asking' ? 'asking' : 'done';
  return {
    ...run, status, to: run.to ?? now, open: new Set(),
    nodes: run.nodes.map((node) => (node.state === 'active' ? { ...node, state: left, to: now } : node)),
    tools: run.tools.map((tool) => (tool.state === 'active' && status !== 'asking' ? { ...tool, state: status === 'done' ? 'done' : 'stopped' } : tool)),
  };
}

function begun(run: RunView, data: Data): RunView {
  const attempt = typeof data.attempt === 'number' ? data.attempt : run.attempt;
  const runId = typeof data.run_id === 'string' ? data.run_id : run.runId;
  // A later attempt starts again the nodes that a crash cut off: what they had said is said anew.
  if (run.attempt === 0 || attempt <= run.attempt) return { ...run, runId, attempt };
  return {
    ...run, runId, attempt, open: new Set(),
    messages: run.messages.filter(({ id }) => !id || !run.open.has(id)),
    nodes: run.nodes.filter(({ state }) => state !== 'active'),
    tools: run.tools.filter(({ state }) => state !== 'active'),
  };
}

function heard(run: RunView, raw: RawMessage | undefined, metadata: Data, now: number): RunView {
  if (!raw || typeof raw !== 'object' || raw.type === 'human') return run;
  const chunk = raw.type === 'AIMessageChunk';
  const place = raw.id ? run.messages.findIndex(({ id }) => id === raw.id) : -1;
  const before = run.messages[place];
  const open = new Set(run.open);
  let message: RawMessage;
  if (!chunk) {
    message = raw;
    if (raw.id) open.delete(raw.id);
  } else if (before && raw.id && !run.open.has(raw.id)) return run; // it is whole already
  else {
    message = before ? joined(before, raw) : joined({ type: 'ai', content: '', id: raw.id ?? null }, raw);
    if (raw.id) open.add(raw.id);
  }
  const messages = [...run.messages];
  if (place < 0) messages.push(message);
  else messages[place] = message;
  const node = metadata.langgraph_node;
  const first = run.firstToken ?? (chunk && hasText(raw) ? now : null);
  const nodes = chunk && typeof node === 'string' ? counted(run.nodes, node, now) : run.nodes;
  const view = { ...run, messages, open, nodes, firstToken: first };
  return chunk ? view : { ...view, tools: known(view.tools, message) };
}

const hasText = (raw: RawMessage): boolean => (typeof raw.content === 'string' ? raw.content !== '' : Array.isArray(raw.content) && raw.content.length > 0);

function counted(nodes: NodeRun[], name: string, now: number): NodeRun[] {
  const place = nodes.findLastIndex(({ node, state }) => node === name && state === 'active');
  return place < 0 ? nodes : nodes.map((node, index) => (index === place ? { ...node, tokens: node.tokens + 1, firstToken: node.firstToken ?? now } : node));
}

function joined(message: RawMessage, chunk: RawMessage): RawMessage {
  const content = typeof message.content === 'string' && typeof chunk.content === 'string'
    ? message.content + chunk.content
    : joinedBlocks(message.content, chunk.content);
  const calls = chunk.tool_calls?.filter(({ name }) => name) ?? [];
  return {
    ...message,
    content,
    tool_calls: calls.length ? callsOf(message.tool_calls ?? [], calls) : message.tool_calls ?? [],
    usage_metadata: added(message.usage_metadata, chunk.usage_metadata),
    response_metadata: { ...message.response_metadata, ...chunk.response_metadata },
  };
}

const blocks = (content: unknown): unknown[] => (Array.isArray(content) ? content : content === '' || content === null || content === undefined ? [] : [{ type: 'text', text: content }]);
const joinedBlocks = (before: unknown, after: unknown): unknown[] => [...blocks(before), ...blocks(after)];

function callsOf(before: ToolCall[], after: ToolCall[]): ToolCall[] {
  const result = [...before];
  for (const call of after) {
    const place = result.findIndex(({ id }) => id === call.id);
    if (place < 0) result.push(call);
    else result[place] = call;
  }
  return result;
}

function added(a: Usage | null | undefined, b: Usage | null | undefined): Usage | null {
  if (!a || !b) return a ?? b ?? null;
  return { input_tokens: a.input_tokens + b.input_tokens, output_tokens: a.output_tokens + b.output_tokens, total_tokens: a.total_tokens + b.total_tokens };
}

const errorText = (error: unknown): string => (typeof error === 'string' ? error : JSON.stringify(error));

function worked(run: RunView, data: Data, place: string[], now: number): RunView {
  const task = String(data.id);
  const name = String(data.name);
  const over = 'result' in data || 'error' in data;
  const path = [...place.map((part) => part.split(':')[0] ?? part), name].join(':');
  const known = run.nodes.findIndex((node) => node.task === task);
  if (!over) {
    const started: NodeRun = { task, node: name, path, state: 'active', from: now, to: null, error: null, firstToken: null, tokens: 0 };
    return { ...run, nodes: known < 0 ? [...run.nodes, started] : run.nodes.map((node, index) => (index === known ? started : node)) };
  }
  const waits = (Array.isArray(data.interrupts) ? data.interrupts : []) as Interrupt[];
  const error = data.error === null || data.error === undefined ? null : errorText(data.error);
  const state = error && /^.?cancelled/i.test(error) ? 'stopped' : error ? 'failed' : waits.length ? 'asking' : 'done';
  const before = run.nodes[known] ?? { task, node: name, path, from: now, firstToken: null, tokens: 0 };
  const finished: NodeRun = { ...before, state, to: now, error };
  const nodes = known < 0 ? [...run.nodes, finished] : run.nodes.map((node, index) => (index === known ? finished : node));
  const written = error ? [] : messagesIn(data.result);
  let view: RunView = { ...run, nodes, interrupts: place.length ? run.interrupts : mergedInterrupts(run.interrupts, waits) };
  for (const message of written) view = heard(view, message, {}, now);
  return view;
}

/** The messages a node wrote, whichever way a server tells its result. */
function messagesIn(result: unknown): RawMessage[] {
  const pairs = Array.isArray(result) ? (result as [string, unknown][]).find((pair) => Array.isArray(pair) && pair[0] === 'messages')?.[1] : (result as Data | null)?.messages;
  const list = Array.isArray(pairs) ? pairs : pairs ? [pairs] : [];
  return (list as RawMessage[]).filter((message) => message && typeof message === 'object' && !!message.id && !!message.type && message.type !== 'remove');
}

function mergedInterrupts(before: Interrupt[], after: Interrupt[]): Interrupt[] {
  const ids = new Set(before.map(interruptId));
  return [...before, ...after.filter((one) => !ids.has(interruptId(one)))];
}

export const interruptId = (interrupt: Interrupt): string | null => interrupt.id ?? interrupt.interrupt_id ?? null;

function asked(run: RunView, data: Data): RunView {
  const waits = data.__interrupt__;
  return Array.isArray(waits) ? { ...run, interrupts: mergedInterrupts(run.interrupts, waits as Interrupt[]) } : run;
}

function told(run: RunView, data: Data, now: number): RunView {
  if (data.type === 'intent' && typeof data.kind === 'string') {
    return { ...run, intent: { kind: data.kind, confidence: Number(data.confidence), language: String(data.language) } };
  }
  if (data.type === 'tool' && typeof data.id === 'string') return { ...run, tools: withTool(run.tools, data) };
  return { ...run, custom: [...run.custom, { at: now, data }] };
}

function withTool(tools: ToolRun[], data: Data): ToolRun[] {
  const id = String(data.id);
  const place = tools.findIndex((tool) => tool.id === id);
  const before = tools[place];
  const states = { started: 'active', finished: 'done', failed: 'failed' } as const;
  const tool: ToolRun = {
    id,
    name: String(data.name),
    args: data.args ?? before?.args ?? {},
    state: states[data.status as keyof typeof states] ?? 'active',
    result: data.result ?? null,
    error: typeof data.error === 'string' ? data.error : null,
    ms: typeof data.ms === 'number' ? data.ms : null,
    cached: data.cached === true,
  };
  return place < 0 ? [...tools, tool] : tools.map((one, index) => (index === place ? tool : one));
}

/** A tool message ends its call where the graph told nothing else of it. */
function known(tools: ToolRun[], message: RawMessage): ToolRun[] {
  if (message.type !== 'tool') return tools;
  return tools.map((tool) => (tool.id === message.tool_call_id && tool.state === 'active' ? { ...tool, state: message.status === 'error' ? 'failed' : 'done' } : tool));
}

function failed(run: RunView, data: Data): RunView {
  const message = String(data.message ?? '');
  const node = run.nodes.findLast(({ state }) => state === 'failed')?.node ?? /^The node (\S+) failed/.exec(message)?.[1] ?? run.nodes.findLast(({ state }) => state === 'active')?.node ?? null;
  return { ...run, failure: { name: String(data.error ?? ''), message, node } };
}
