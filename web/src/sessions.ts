/** The list of sessions: read a page at a time, searched, renamed, deleted. */
import * as lg from './api/langgraph';
import * as own from './api/own';
import { External } from './model/external';
import { server } from './server';
import { textOf } from './model/messages';

export interface Row { id: string; title: string; status: string; updated: string; live: boolean | null; turns: number | null }
export interface Sessions { rows: Row[]; next: string | null; loading: boolean; failed: boolean; waiting: number }

export const sessions = new External<Sessions>({ rows: [], next: null, loading: true, failed: false, waiting: 0 });

const PAGE = 30;
let asked = 0;

/** Read the list again, as far as it was read. */
export async function readSessions(): Promise<void> {
  const turn = (asked += 1);
  try {
    const page = await pageOf(null, Math.min(500, Math.max(PAGE, sessions.get().rows.length)));
    if (turn !== asked) return;
    sessions.change({ ...page, loading: false, failed: false });
    const waiting = await lg.searchThreads({ status: 'interrupted', limit: 100, select: ['thread_id', 'interrupts'] });
    if (turn === asked) sessions.change({ waiting: waiting.filter(waits).length });
  } catch {
    if (turn === asked) sessions.change({ loading: false, failed: true });
  }
}

export const waits = ({ interrupts }: { interrupts?: Record<string, unknown[]> }): boolean => Object.values(interrupts ?? {}).some((list) => list.length > 0);

export async function readMore(): Promise<void> {
  const { next, rows } = sessions.get();
  if (next === null) return;
  const turn = (asked += 1);
  try {
    const page = await pageOf(next, PAGE);
    if (turn === asked) sessions.change({ rows: [...rows, ...page.rows.filter(({ id }) => rows.every((row) => row.id !== id))], next: page.next });
  } catch {
    if (turn === asked) sessions.change({ failed: true });
  }
}

/** Read all there are, so that a search finds the old ones too. */
export async function readAll(limit = 2000): Promise<void> {
  while (sessions.get().next !== null && sessions.get().rows.length < limit && !sessions.get().failed) await readMore();
}

async function pageOf(from: string | null, limit: number): Promise<{ rows: Row[]; next: string | null }> {
  if (!server.get().own) return otherPage(Number(from ?? 0), limit);
  const { items, next } = await own.sessions(from, limit);
  const ids = items.map(({ session_id }) => session_id);
  const threads = ids.length ? await lg.searchThreads({ ids, limit: ids.length, select: ['thread_id', 'metadata'] }) : [];
  const named = new Map(threads.map(({ thread_id, metadata }) => [thread_id, metadata?.title]));
  const rows = items.map((item) => {
    const title = named.get(item.session_id);
    return { id: item.session_id, title: typeof title === 'string' && title ? title : item.title, status: item.status, updated: item.updated_at, live: item.live, turns: item.turns };
  });
  return { rows, next };
}

async function otherPage(offset: number, limit: number): Promise<{ rows: Row[]; next: string | null }> {
  const threads = await lg.searchThreads({ limit, offset, sort_by: 'updated_at', sort_order: 'desc' });
  const rows = threads.map(({ thread_id: id, metadata, values, status, updated_at: updated }) => {
    const first = Array.isArray(values?.messages) ? textOf((values.messages[0] as { content?: unknown } | undefined)?.content) : '';
    return { id, title: typeof metadata?.title === 'string' ? metadata.title : first.slice(0, 80), status, updated, live: null, turns: null };
  });
  return { rows, next: threads.length === limit ? String(offset + limit) : null };
}

export async function rename(id: string, title: string): Promise<void> {
  await lg.renameThread(id, title);
  await readSessions();
}

export async function remove(id: string): Promise<void> {
  await lg.deleteThread(id);
  localStorage.removeItem(`threadline.draft.${id}`);
  sessions.change({ rows: sessions.get().rows.filter((row) => row.id !== id) });
  await readSessions();
}
