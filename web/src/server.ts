/** The server the page speaks to: what it is, its assistants, and which of them is used. */
import * as lg from './api/langgraph';
import { ApiError, keptKey } from './api/http';
import type { Assistant, Info } from './api/types';
import { External } from './model/external';

export interface Server { status: 'asking' | 'ready' | 'away'; info: Info | null; own: boolean; assistants: Assistant[]; assistantId: string; error: ApiError | null }

export const server = new External<Server>({ status: 'asking', info: null, own: false, assistants: [], assistantId: 'agent', error: null });

const CHOSEN = 'threadline.assistant';

export async function connect(): Promise<void> {
  server.change({ status: 'asking', error: null });
  try {
    const info = await lg.info().catch((error: unknown) => { if (error instanceof ApiError && error.status === 404) return {} as Info; throw error; });
    server.change({ info, own: info.name === 'threadline' });
    await readAssistants();
    // A project that says itself who asks tells strangers less: what they are told changes with the key.
    const known = info.name || !keptKey() ? info : await lg.info();
    server.change({ status: 'ready', info: known, own: known.name === 'threadline' });
  } catch (error) {
    server.change({ status: 'away', error: error instanceof ApiError ? error : new ApiError('internal', String(error)) });
  }
}

export async function readAssistants(): Promise<void> {
  const assistants = await lg.assistants();
  const kept = sessionStorage.getItem(CHOSEN);
  const system = assistants.filter(({ metadata }) => metadata?.created_by === 'system');
  const first = system.at(-1) ?? assistants.at(-1); // newest first: the first graph of langgraph.json comes last
  const { info } = server.get();
  const main = assistants.find(({ name, metadata }) => name === info?.graphs?.[0] && metadata?.created_by === 'system');
  const chosen = assistants.find(({ assistant_id }) => assistant_id === kept) ?? main ?? first;
  server.change({ assistants, assistantId: chosen?.assistant_id ?? 'agent' });
}

export function chooseAssistant(id: string): void {
  sessionStorage.setItem(CHOSEN, id);
  server.change({ assistantId: id });
}

export const chosenAssistant = ({ assistants, assistantId }: Server): Assistant | null => assistants.find(({ assistant_id }) => assistant_id === assistantId) ?? null;
