/** Messages as the page reads them, whichever way a server writes them. */
import type { RawMessage, ToolCall, Usage } from '../api/types';

export type Role = 'user' | 'assistant' | 'tool' | 'system';

export interface Message {
  id: string | null;
  role: Role;
  text: string;
  calls: ToolCall[];
  callId: string | null;
  name: string | null;
  failed: boolean;
  artifact: unknown;
  usage: Usage | null;
  cost: number | null;
  model: string | null;
  files: number;
  raw: RawMessage;
}

const ROLES: Record<string, Role> = { human: 'user', user: 'user', ai: 'assistant', assistant: 'assistant', tool: 'tool', system: 'system' };

/** The text of a content: a string, or a list of blocks of which the text ones are read. */
export function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return content === null || content === undefined ? '' : JSON.stringify(content);
  return content.map((block: unknown) => (typeof block === 'string' ? block : textBlock(block))).join('');
}

const textBlock = (block: unknown): string => {
  const text = (block as { text?: unknown } | null)?.text;
  return typeof text === 'string' ? text : '';
};

const filesIn = (content: unknown): number =>
  Array.isArray(content) ? content.filter((block: { type?: string } | null) => !!block?.type && block.type !== 'text' && /image|file|audio|video|document/.test(block.type)).length : 0;

const read = new WeakMap<RawMessage, Message>();

export function readMessage(raw: RawMessage): Message {
  const known = read.get(raw);
  if (known) return known;
  const kind = (raw.type ?? raw.role ?? 'system').replace(/MessageChunk$/, '').toLowerCase();
  const cost = raw.response_metadata?.cost;
  const model = raw.response_metadata?.model_name;
  const message: Message = {
    id: raw.id ?? null,
    role: ROLES[kind] ?? 'system',
    text: textOf(raw.content),
    calls: raw.tool_calls ?? [],
    callId: raw.tool_call_id ?? null,
    name: raw.name ?? null,
    failed: raw.status === 'error',
    artifact: raw.artifact ?? null,
    usage: raw.usage_metadata ?? null,
    cost: typeof cost === 'number' ? cost : null,
    model: typeof model === 'string' ? model : null,
    files: filesIn(raw.content),
    raw,
  };
  read.set(raw, message);
  return message;
}

/** A message and what came of it, up to the next one of the user's. */
export interface Turn { key: string; user: Message | null; rest: Message[] }

export function turnsOf(messages: readonly Message[]): Turn[] {
  const turns: Turn[] = [];
  for (const message of messages) {
    const last = turns.at(-1);
    if (message.role === 'system') continue;
    if (message.role === 'user') turns.push({ key: message.id ?? `turn-${turns.length}`, user: message, rest: [] });
    else if (last) last.rest.push(message);
    else turns.push({ key: 'turn-0', user: null, rest: [message] });
  }
  return turns;
}

/** `messages` and those of `newer`, which take the place of the ones with the same id. */
export function merged(messages: readonly RawMessage[], newer: readonly RawMessage[]): RawMessage[] {
  if (newer.length === 0) return [...messages];
  const result = [...messages];
  const places = new Map(result.map((message, place) => [message.id, place]));
  for (const message of newer) {
    const place = message.id ? places.get(message.id) : undefined;
    if (place === undefined) {
      if (message.id) places.set(message.id, result.length);
      result.push(message);
    } else result[place] = message;
  }
  return result;
}

/** JSON where a text is JSON, else the text. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
