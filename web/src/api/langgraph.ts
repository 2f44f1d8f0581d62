/** The LangGraph Server API, one function per call. Works with any server that speaks it. */
import { at, json, post, request } from './http';
import type { Assistant, Dict, Graph, Info, Run, Schemas, Thread, ThreadState } from './types';

export const MODES = ['messages-tuple', 'tasks', 'custom', 'updates'];

export const info = (): Promise<Info> => json('/info');

export const assistants = (limit = 100): Promise<Assistant[]> => post('/assistants/search', { limit, offset: 0 });
export const assistant = (id: string): Promise<Assistant> => json(`/assistants/${at(id)}`);
export const createAssistant = (body: Dict): Promise<Assistant> => post('/assistants', body);
export const changeAssistant = (id: string, body: Dict): Promise<Assistant> => json(`/assistants/${at(id)}`, { method: 'PATCH', body });
export const deleteAssistant = (id: string): Promise<null> => json(`/assistants/${at(id)}`, { method: 'DELETE' });
export const assistantVersions = (id: string): Promise<Assistant[]> => post(`/assistants/${at(id)}/versions`, { limit: 100 });
export const activateVersion = (id: string, version: number): Promise<Assistant> => post(`/assistants/${at(id)}/latest`, { version });
export const graph = (id: string, xray: boolean): Promise<Graph> => json(`/assistants/${at(id)}/graph${xray ? '?xray=true' : ''}`);
export const schemas = (id: string): Promise<Schemas> => json(`/assistants/${at(id)}/schemas`);

export const createThread = (metadata: Dict): Promise<Thread> => post('/threads', { metadata });
export const thread = (id: string): Promise<Thread> => json(`/threads/${at(id)}`);
export const renameThread = (id: string, title: string): Promise<Thread> => json(`/threads/${at(id)}`, { method: 'PATCH', body: { metadata: { title } } });
export const deleteThread = (id: string): Promise<null> => json(`/threads/${at(id)}`, { method: 'DELETE' });
export const searchThreads = (body: Dict): Promise<Thread[]> => post('/threads/search', body);

export const state = (id: string, checkpointId?: string | null): Promise<ThreadState> =>
  json(`/threads/${at(id)}/state${checkpointId ? `/${at(checkpointId)}` : ''}`);
export const history = (id: string, limit: number, before?: string | null): Promise<ThreadState[]> =>
  post(`/threads/${at(id)}/history`, { limit, ...(before ? { before: { configurable: { thread_id: id, checkpoint_ns: '', checkpoint_id: before } } } : {}) });
/** Write to the state: a new checkpoint after `checkpointId`. */
export const updateState = (id: string, body: Dict): Promise<{ checkpoint?: { checkpoint_id: string }; configurable?: { checkpoint_id: string }; checkpoint_id?: string }> =>
  post(`/threads/${at(id)}/state`, body);

export const runs = (id: string, query: string): Promise<Run[]> => json(`/threads/${at(id)}/runs?${query}`);
export const startRun = (id: string, body: Dict, signal: AbortSignal): Promise<Response> =>
  request(`/threads/${at(id)}/runs/stream`, { method: 'POST', body: { stream_mode: MODES, stream_subgraphs: true, stream_resumable: true, ...body }, signal });
/** A run's frames after `lastId`; `-1` is from the start. */
export const joinRun = (id: string, runId: string, lastId: string, signal: AbortSignal): Promise<Response> => {
  const modes = MODES.map((mode) => `stream_mode=${mode}`).join('&');
  return request(`/threads/${at(id)}/runs/${at(runId)}/stream?${modes}`, { signal, headers: { 'Last-Event-ID': lastId } });
};
export const cancelRun = (id: string, runId: string): Promise<Response> =>
  request(`/threads/${at(id)}/runs/${at(runId)}/cancel?wait=0&action=interrupt`, { method: 'POST' });
