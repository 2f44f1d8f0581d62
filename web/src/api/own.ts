/** What only Threadline serves. `/info` says whether the server is one; elsewhere none of this is called. */
import { at, json, request } from './http';
import type { Checkpoint, Dict } from './types';

export interface SessionRow { session_id: string; title: string; created_at: string; updated_at: string; status: string; live: boolean; turns: number }
export interface DocumentMessage { role: 'user' | 'assistant'; content: string; timestamp: string; metadata: Dict }
interface Page<T> { items: T[]; next: string | null }

const paged = (before: string | null, limit: number): string => `limit=${limit}${before ? `&before=${at(before)}` : ''}`;

export const sessions = (before: string | null, limit = 100): Promise<Page<SessionRow>> => json(`/sessions?${paged(before, limit)}`);
export const session = (id: string): Promise<{ messages: DocumentMessage[] }> => json(`/sessions/${at(id)}?branch=all`);
export const checkpoints = (id: string, before: string | null, limit = 60): Promise<Page<Checkpoint>> =>
  json(`/sessions/${at(id)}/checkpoints?${paged(before, limit)}`);
export const pin = (id: string, checkpointId: string, name: string | null): Promise<unknown> =>
  json(`/sessions/${at(id)}/checkpoints/${at(checkpointId)}/pin`, { method: 'PUT', ...(name ? { body: { name } } : {}) });
export const unpin = (id: string, checkpointId: string): Promise<unknown> =>
  json(`/sessions/${at(id)}/checkpoints/${at(checkpointId)}/pin`, { method: 'DELETE' });

export interface Branch { branch_id: string; name: string | null; head_checkpoint_id: string; current: boolean; main: boolean }
export const branches = async (id: string): Promise<Branch[]> => (await json<Page<Branch>>(`/sessions/${at(id)}/branches?limit=500`)).items;
/** Its name keeps a branch from retention; null takes it away. */
export const nameBranch = (id: string, branchId: string, name: string | null): Promise<unknown> =>
  json(`/sessions/${at(id)}/branches/${at(branchId)}`, { method: 'PUT', body: { name } });
/** The session goes on from the end of this branch, for every client; with `promote` it is its main line too. */
export const switchBranch = (id: string, branchId: string, promote: boolean): Promise<unknown> =>
  json(`/sessions/${at(id)}/branches/${at(branchId)}/${promote ? 'promote' : 'switch'}`, { method: 'POST' });

/** A recorded replay in the frames of the LangGraph API. `speed`: `1` is the pace it had, `max` gives all at once. */
export function recorded(id: string, from: string | null, speed: string, modes: readonly string[], after: string | null, signal: AbortSignal): Promise<Response> {
  const query = `format=langgraph&subgraphs=true&speed=${speed}&modes=${modes.join(',')}${from ? `&from=${at(from)}` : ''}`;
  return request(`/sessions/${at(id)}/replay?${query}`, { signal, headers: after ? { 'Last-Event-ID': after } : {} });
}
