/** The conversation on the screen: which thread and branch it is, what runs, and everything one can do with it. */
import * as lg from './api/langgraph';
import * as own from './api/own';
import { ApiError } from './api/http';
import { readFrames, type Frame } from './api/sse';
import type { Checkpoint, Dict, Interrupt, RawMessage, ThreadState } from './api/types';
import { External } from './model/external';
import { merged, readMessage } from './model/messages';
import { ended, interruptId, newRun, withFrame, type RunView } from './model/run';
import { baseOf, briefOf, firstStep, leafOf, pathTo, segmentsOf, treeOf, type Segment, type Tree } from './model/tree';
import { server } from './server';

export interface Unsent { text: string; message: RawMessage; from: string | null; error: ApiError }
export interface Past { checkpoint: Checkpoint; values: Dict; messages: RawMessage[] }
export interface Recording { status: 'playing' | 'paused' | 'over'; speed: string; run: RunView | null; runs: RunView[]; views: ReadonlyMap<string, RunView>; messages: RawMessage[]; error: string | null }

export interface Session {
  threadId: string | null;
  title: string | null;
  opening: boolean;
  messages: RawMessage[];
  values: Dict;
  next: string[];
  interrupts: Interrupt[];
  /** The checkpoint the shown branch ends in; null while there is none. */
  leaf: string | null;
  head: string | null;
  checkpoints: Checkpoint[];
  complete: boolean;
  /** Where the older checkpoints go on that have not been read yet. */
  older: string | null;
  tree: Tree;
  documented: ReadonlyMap<string, own.DocumentMessage>;
  run: RunView | null;
  runs: ReadonlyMap<string, RunView>;
  stopping: boolean;
  reconnecting: boolean;
  queue: string[];
  unsent: Unsent | null;
  past: Past | null;
  recording: Recording | null;
  breakpoints: { before: string[]; after: string[] };
  /** The body of the last run that was asked for. */
  lastAsked: Dict | null;
}

const blank = (): Session => ({
  threadId: null, title: null, opening: false, messages: [], values: {}, next: [], interrupts: [], leaf: null, head: null, checkpoints: [],
  complete: true, older: null, tree: treeOf([]), documented: new Map(), run: null, runs: new Map(), stopping: false, reconnecting: false, queue: [],
  unsent: null, past: null, recording: null, breakpoints: { before: [], after: [] }, lastAsked: null,
});

export const session = new External<Session>(blank());

/** Told of what a person would want to hear: an error, a run that ended, a thread that came to be. */
export const heard: { problem: (error: unknown) => void; changed: () => void; started: () => void; ended: (run: RunView) => void } = {
  problem: () => undefined, changed: () => undefined, started: () => undefined, ended: () => undefined,
};

const TRIES = 6;
const SHOW_EVERY = 40;
const OLD_STATES = 60;

let opening = 0;
let following: AbortController | null = null;
let playing: AbortController | null = null;

export const isBusy = (s: Session): boolean => s.run?.status === 'running';

function leave(): number {
  following?.abort();
  playing?.abort();
  line?.abort();
  following = null;
  playing = null;
  return (opening += 1);
}

export function newChat(): void {
  leave();
  session.set({ ...blank(), breakpoints: session.get().breakpoints });
}

// ---- Opening

export async function open(threadId: string, leaf: string | null = null): Promise<void> {
  const turn = leave();
  session.set({ ...blank(), threadId, opening: true, breakpoints: session.get().breakpoints });
  try {
    const [thread, state] = await Promise.all([lg.thread(threadId), lg.state(threadId)]);
    if (turn !== opening) return;
    const title = thread.metadata?.title;
    session.change({ ...ofState(state), head: state.checkpoint?.checkpoint_id ?? null, opening: false, title: typeof title === 'string' ? title : null });
    void readCheckpoints().then(() => (leaf && turn === opening ? showLeaf(leaf) : undefined));
    void readDocument();
    if (thread.status !== 'idle') await takeUp(threadId, turn);
  } catch (error) {
    if (turn !== opening) return;
    session.change({ opening: false });
    heard.problem(error);
  }
}

/** A thread that is not at rest runs, waits for an answer, or failed: the frames of its last run say which. */
async function takeUp(threadId: string, turn: number): Promise<void> {
  const runs = await lg.runs(threadId, 'limit=10');
  const last = runs.toReversed().find(({ status }) => status === 'running' || status === 'pending') ?? runs[0];
  if (!last || turn !== opening) return;
  await play((signal) => lg.joinRun(threadId, last.run_id, '-1', signal), newRun(last.run_id), { old: last.status !== 'running' && last.status !== 'pending' });
}

function ofState(state: ThreadState): Pick<Session, 'messages' | 'values' | 'next' | 'interrupts' | 'leaf'> {
  const values = state.values ?? {};
  return {
    values, messages: messagesIn(values), next: state.next, leaf: state.checkpoint?.checkpoint_id ?? null,
    interrupts: state.interrupts?.length ? state.interrupts : state.tasks.flatMap((task) => task.interrupts ?? []),
  };
}

const messagesIn = (values: Dict): RawMessage[] => (Array.isArray(values.messages) ? values.messages as RawMessage[] : []);

/**
 * The newest checkpoints, until they meet those that were read before: a checkpoint never changes but for its pin.
 *
 * `anew` reads the pins of the newest again. Older ones are read when somebody looks for them.
 */
export async function readCheckpoints({ anew = false } = {}): Promise<void> {
  const { threadId } = session.get();
  const turn = opening;
  if (!threadId) return;
  const kept = session.get().checkpoints;
  const newest = anew ? null : kept[0]?.checkpoint_id ?? null;
  let read: Checkpoint[] = [];
  let before: string | null = null;
  const met = (): boolean => newest === null || read.some(({ checkpoint_id: id }) => id <= newest);
  try {
    do {
      const page: Page = await pageOf(threadId, before);
      if (turn !== opening) return;
      read = [...read, ...page.items];
      before = page.next;
    } while (before !== null && !met());
    const oldest = read.at(-1)?.checkpoint_id ?? '';
    const ids = new Set(read.map(({ checkpoint_id: id }) => id));
    const rest = before === null ? [] : kept.filter(({ checkpoint_id: id }) => id < oldest && !ids.has(id));
    const all = [...read, ...rest];
    session.change({ checkpoints: all, tree: treeOf(all), older: rest.length ? session.get().older : before, complete: rest.length ? session.get().complete : before === null });
  } catch (error) {
    if (turn === opening) heard.problem(error);
  }
}

let readingOlder = false;

/** The next page of older checkpoints, where there are any. */
export async function readOlder(): Promise<void> {
  const { threadId, older } = session.get();
  const turn = opening;
  if (!threadId || older === null || readingOlder) return;
  readingOlder = true;
  try {
    const page = await pageOf(threadId, older);
    if (turn !== opening) return;
    const all = [...session.get().checkpoints, ...page.items];
    session.change({ checkpoints: all, tree: treeOf(all), older: page.next, complete: page.next === null });
  } catch (error) {
    if (turn === opening) heard.problem(error);
  } finally {
    readingOlder = false;
  }
}

interface Page { items: Checkpoint[]; next: string | null }

const pageOf = (threadId: string, before: string | null): Promise<Page> => (server.get().own ? own.checkpoints(threadId, before) : oldPage(threadId, before));

/** Other servers tell whole states only. */
async function oldPage(threadId: string, before: string | null): Promise<Page> {
  const states = await lg.history(threadId, OLD_STATES, before);
  const items = states.map((state, n) => briefOf(state, states.find((other) => other.checkpoint?.checkpoint_id === state.parent_checkpoint?.checkpoint_id) ?? states[n + 1]));
  return { items, next: states.length === OLD_STATES ? items.at(-1)?.checkpoint_id ?? null : null };
}

/** What runs cost, and what stopped and failed ones had said. */
async function readDocument(): Promise<void> {
  const { threadId } = session.get();
  const turn = opening;
  if (!threadId || !server.get().own) return;
  try {
    const { messages } = await own.session(threadId);
    if (turn !== opening) return;
    const documented = new Map<string, own.DocumentMessage>();
    for (const message of messages) if (message.role === 'assistant' && typeof message.metadata.run_id === 'string') documented.set(message.metadata.run_id, message);
    session.change({ documented });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the conversation is there without it
  }
}

// ---- Running

export interface Start { body: Dict; base: RawMessage[]; said?: RawMessage | null; from: string | null; text?: string }

const human = (text: string): RawMessage => ({ type: 'human', content: text, id: crypto.randomUUID() });

/** Say something; while a run goes on it waits its turn. */
export async function say(text: string): Promise<void> {
  const s = session.get();
  if (isBusy(s)) {
    session.change({ queue: [...s.queue, text] });
    return;
  }
  const message = human(text);
  const from = s.past ? s.past.checkpoint.checkpoint_id : s.leaf !== s.head ? s.leaf : null;
  await start({ body: { input: { messages: [message] } }, base: s.past?.messages ?? s.messages, said: message, from, text });
}

/** Give a graph that is no conversation its input. */
export const give = (input: unknown): Promise<void> => start({ body: { input }, base: session.get().messages, from: null });

/** What was said, in other words: a branch beside the old one. */
export async function edit(segment: Segment, place: number, text: string): Promise<void> {
  const message = human(text);
  await start({ body: { input: { messages: [message] } }, base: session.get().messages.slice(0, place), said: message, from: baseOf(segment), text });
}

/** Answer again, on a branch beside the old one. */
export async function regenerate(segment: Segment, place: number): Promise<void> {
  const step = firstStep(segment);
  if (step) await start({ body: { input: null }, base: session.get().messages.slice(0, place + 1), from: step.checkpoint_id });
}

/** Go on from where the thread stands: after a fault, a stop or a breakpoint. */
export async function goOn(): Promise<void> {
  const s = session.get();
  await start({ body: { input: null }, base: s.messages, from: s.leaf !== s.head ? s.leaf : null });
}

/** Execute again from a checkpoint, on a new branch. */
export async function rerun(checkpoint: Checkpoint): Promise<void> {
  const { past, threadId } = session.get();
  if (!threadId) return;
  const base = past?.checkpoint.checkpoint_id === checkpoint.checkpoint_id ? past.messages : messagesIn((await lg.state(threadId, checkpoint.checkpoint_id)).values ?? {});
  await start({ body: { input: null }, base, from: checkpoint.checkpoint_id });
}

/** Write a changed state after a checkpoint, and go on from it where something is next. */
export async function fork(checkpoint: Checkpoint, values: Dict, asNode: string | null): Promise<void> {
  const { threadId } = session.get();
  if (!threadId) return;
  const written = await lg.updateState(threadId, { values, checkpoint_id: checkpoint.checkpoint_id, ...(asNode ? { as_node: asNode } : {}) });
  const made = written.checkpoint?.checkpoint_id ?? written.configurable?.checkpoint_id ?? written.checkpoint_id;
  await refresh();
  if (made) await showLeaf(made);
  const { next } = session.get();
  if (next.length) await goOn();
}

/** Answer what the graph asked. */
export async function answer(interrupt: Interrupt, value: unknown): Promise<void> {
  const s = session.get();
  const id = interruptId(interrupt);
  const resume = s.interrupts.length > 1 && id ? { [id]: value } : value;
  await start({ body: { command: { resume } }, base: s.messages, from: s.leaf !== s.head ? s.leaf : null });
}

async function start({ body, base, said = null, from, text = '' }: Start): Promise<void> {
  const before = session.get();
  if (isBusy(before)) return;
  const turn = opening;
  const { assistantId } = server.get();
  const messages = said ? [...base, said] : base;
  session.change({ messages, run: newRun(), unsent: null, past: null, recording: null, interrupts: [], stopping: false });
  heard.started();
  let sent = false;
  try {
    let { threadId } = before;
    if (threadId === null) {
      const thread = await lg.createThread({ ...(text ? { title: text.slice(0, 80) } : {}), assistant_id: assistantId });
      if (turn !== opening) return;
      threadId = thread.thread_id;
      session.change({ threadId, title: text.slice(0, 80) });
      heard.changed();
    }
    const { before: stopBefore, after: stopAfter } = session.get().breakpoints;
    const id = threadId;
    const asked = {
      assistant_id: assistantId, ...body, ...(from ? { checkpoint_id: from } : {}), on_disconnect: 'continue', multitask_strategy: 'enqueue',
      ...(stopBefore.length ? { interrupt_before: stopBefore } : {}), ...(stopAfter.length ? { interrupt_after: stopAfter } : {}),
    };
    session.change({ lastAsked: asked });
    await play(async (signal) => { const response = await lg.startRun(id, asked, signal); sent = true; return response; }, newRun());
  } catch (error) {
    if (turn !== opening || (error as Error).name === 'AbortError') return;
    const refusal = error instanceof ApiError ? error : new ApiError('internal', String(error));
    if (sent || !said) {
      session.change({ run: null, messages: before.messages });
      heard.problem(refusal);
    } else session.change({ run: null, unsent: { text, message: said, from, error: refusal } });
  }
}

/** Say again what could not be sent. */
export async function resend(): Promise<void> {
  const { unsent, messages } = session.get();
  if (unsent) await start({ body: { input: { messages: [unsent.message] } }, base: messages.slice(0, -1), said: unsent.message, from: unsent.from, text: unsent.text });
}

/** Follow a run to its end, over every break of the line. `old`: it has ended, and is only told again. */
async function play(openStream: (signal: AbortSignal) => Promise<Response>, begun: RunView, { old = false } = {}): Promise<void> {
  const turn = opening;
  const controller = new AbortController();
  following = controller;
  let view = begun;
  let shown = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = (): void => { clearTimeout(timer); timer = undefined; shown = Date.now(); if (turn === opening) session.change({ run: view }); };
  const take = (frame: Frame): void => {
    view = withFrame(view, frame);
    if (Date.now() - shown > SHOW_EVERY) show();
    else timer ??= setTimeout(show, SHOW_EVERY);
  };
  session.change({ run: view });
  let tries = 0;
  let response: Response | null = await openStream(controller.signal);
  for (;;) {
    try {
      if (response?.body) for await (const frame of readFrames(response.body)) { take(frame); if (tries) { tries = 0; session.change({ reconnecting: false }); } }
    } catch {
      // The line broke; what came is kept, and the rest is asked for below.
    }
    if (turn !== opening || controller.signal.aborted) { clearTimeout(timer); return; }
    const { threadId } = session.get();
    if (view.failure || !view.runId || !threadId) break;
    try {
      const { status } = await lg.runs(threadId, 'limit=20').then((runs) => runs.find(({ run_id }) => run_id === view.runId) ?? { status: 'success' });
      if (status !== 'running' && status !== 'pending') {
        if (tries === 0) break;
        // The end may have come while the line was down: what is left of the log is still to be had.
      }
      response = await lg.joinRun(threadId, view.runId, view.lastId ?? '-1', controller.signal);
      if (status !== 'running' && status !== 'pending') { for await (const frame of readFrames(response.body as ReadableStream<Uint8Array>)) take(frame); break; }
    } catch (error) {
      if (controller.signal.aborted) return;
      if (tries >= TRIES || (error instanceof ApiError && !error.retryable)) { view = { ...view, failure: { name: 'lost', message: '', node: null } }; break; }
    }
    tries += 1;
    session.change({ reconnecting: true });
    await pause(tries > 1 ? 300 * 2 ** (tries - 1) : 50, controller.signal);
    if (turn !== opening) return;
  }
  clearTimeout(timer);
  if (turn !== opening) return;
  view = ended(view, Date.now(), session.get().stopping);
  const { runs } = session.get();
  session.change({ run: view, reconnecting: false, stopping: false, runs: view.runId ? new Map(runs).set(view.runId, view) : runs });
  following = null;
  await refresh();
  if (turn !== opening) return;
  if (!old) heard.ended(view);
  heard.changed();
  await sendNext();
}

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => { const timer = setTimeout(resolve, ms); signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }); });

/** Read the thread again as it stands now. */
export async function refresh(): Promise<void> {
  const { threadId, run } = session.get();
  const turn = opening;
  if (!threadId) return;
  try {
    const state = await lg.state(threadId);
    await Promise.all([readCheckpoints(), readDocument()]);
    if (turn !== opening) return;
    const read = ofState(state);
    // A failed or stopped run has said things that are in no state.
    const messages = run && (run.status === 'failed' || run.status === 'stopped') ? merged(read.messages, run.messages.filter((message) => !read.messages.some(({ id }) => id === message.id))) : read.messages;
    session.change({ ...read, messages, head: read.leaf });
  } catch (error) {
    if (turn === opening) heard.problem(error);
  }
}

async function sendNext(): Promise<void> {
  const { queue: [next, ...queue], run, interrupts } = session.get();
  if (next === undefined || run?.status === 'failed' || interrupts.length) return;
  session.change({ queue });
  await say(next);
}

export const unqueue = (place: number): void => session.change({ queue: session.get().queue.filter((_, n) => n !== place) });

/** Stop the run itself, not only listening to it. */
export async function stop(): Promise<void> {
  const { threadId, run } = session.get();
  if (!threadId || !run?.runId || run.status !== 'running') return;
  session.change({ stopping: true, queue: [] });
  try {
    await lg.cancelRun(threadId, run.runId);
  } catch (error) {
    if (error instanceof ApiError && (error.status === 409 || error.status === 404)) return; // it has ended meanwhile
    session.change({ stopping: false });
    heard.problem(error);
  }
}

// ---- Branches and the past

/** Show the branch that ends in a checkpoint. */
export async function showLeaf(leaf: string): Promise<void> {
  const { threadId, leaf: shown } = session.get();
  const turn = opening;
  if (!threadId || shown === leaf) return;
  try {
    const state = await lg.state(threadId, leaf);
    if (turn === opening) session.change({ ...ofState(state), run: null, past: null });
  } catch (error) {
    heard.problem(error);
  }
}

/** Show the conversation as it stood at a checkpoint; null comes back to now. */
export async function lookAt(checkpoint: Checkpoint | null): Promise<ThreadState | null> {
  const { threadId, tree } = session.get();
  if (!threadId || !checkpoint) {
    session.change({ past: null });
    return null;
  }
  const turn = opening;
  const state = await stateAt(threadId, checkpoint.checkpoint_id);
  if (turn !== opening) return null;
  const values = state.values ?? {};
  const { leaf } = session.get();
  const newest = leaf ? leafOf(tree, leaf) : null;
  session.change({ past: checkpoint.checkpoint_id === newest ? null : { checkpoint, values, messages: messagesIn(values) } });
  return state;
}

const KEPT = 24;
const states = new Map<string, ThreadState>();

/** The state at a checkpoint, which never changes; the last ones asked for are kept. */
export async function stateAt(threadId: string, checkpointId: string): Promise<ThreadState> {
  const known = states.get(checkpointId);
  if (known) return known;
  const state = await lg.state(threadId, checkpointId);
  states.set(checkpointId, state);
  const oldest = states.keys().next().value;
  if (states.size > KEPT && oldest) states.delete(oldest);
  return state;
}

/** The turns of the shown branch, each with the checkpoints it left. */
export function segments(s: Session): Segment[] {
  return segmentsOf(pathTo(s.tree, s.past ? s.past.checkpoint.checkpoint_id : s.leaf));
}

// ---- Recordings

let line: AbortController | null = null;

/**
 * Play what came after a checkpoint as it was recorded; no model, no tool is called.
 *
 * Without a checkpoint it is all of the session; on a branch beside the newest, all of that branch's own.
 */
export async function playRecording(given: Checkpoint | null, speed: string): Promise<void> {
  const { threadId, tree, leaf, head } = session.get();
  if (!threadId || !leaf) return;
  playing?.abort();
  const controller = new AbortController();
  playing = controller;
  const from = given ?? (leaf === head ? null : pathTo(tree, leaf).find(({ checkpoint_id: id }) => leafOf(tree, id) === leaf) ?? null);
  const base = from ? messagesIn((await stateAt(threadId, from.checkpoint_id)).values ?? {}) : [];
  session.change({ recording: { status: 'playing', speed, run: null, runs: [], views: new Map(), messages: base, error: null }, past: null });
  let lastId: string | null = null;
  let broken = 0;
  while (!controller.signal.aborted) {
    const now = session.get().recording;
    if (!now) return;
    if (now.status === 'paused') {
      await changed(controller.signal);
      continue;
    }
    const reading = new AbortController();
    line = reading;
    try {
      const response = await own.recorded(threadId, from?.checkpoint_id ?? null, now.speed, lg.MODES, lastId, reading.signal);
      if (response.status === 204 || !response.body) break;
      let over = false;
      for await (const frame of readFrames(response.body)) {
        if (reading.signal.aborted || controller.signal.aborted) break;
        over = frame.event === 'replay_done';
        if (over) break;
        lastId = frame.id ?? lastId;
        broken = 0;
        playFrame(frame);
      }
      if (over) break;
      if (!reading.signal.aborted && (broken += 1) > TRIES) throw new ApiError('lost', '');
    } catch (error) {
      if (controller.signal.aborted) return;
      if (reading.signal.aborted) continue; // paused, or another speed: it goes on behind the last frame
      if (!(error instanceof ApiError && error.retryable) || (broken += 1) > TRIES) {
        recorded({ status: 'over', error: error instanceof ApiError ? error.kind : 'internal' });
        return;
      }
      await pause(300 * broken, controller.signal);
    }
  }
  if (controller.signal.aborted) return;
  closeRun();
  recorded({ status: 'over' });
}

function recorded(part: Partial<Recording>): void {
  const { recording } = session.get();
  if (recording) session.change({ recording: { ...recording, ...part } });
}

/** One frame of a recording; its id begins with its run's. */
function playFrame(frame: Frame): void {
  const runId = frame.id?.split(':')[0] ?? null;
  if (session.get().recording?.run?.runId !== runId) closeRun();
  const { recording } = session.get();
  if (!recording) return;
  const data = frame.data as Dict | null;
  const input = frame.event === 'tasks' && data && 'input' in data ? messagesIn((data.input ?? {}) as Dict) : [];
  recorded({ messages: merged(recording.messages, input), run: withFrame(recording.run ?? newRun(runId), frame) });
}

/** The run that was played has ended: what it said is part of the conversation. */
function closeRun(): void {
  const { recording } = session.get();
  if (!recording?.run) return;
  const view = ended(recording.run);
  const said = recording.messages.map(readMessage).findLast(({ role }) => role === 'user')?.id ?? 'turn-0';
  recorded({ run: null, runs: [...recording.runs, view], views: new Map(recording.views).set(said, view), messages: merged(recording.messages, view.messages) });
}

const changed = (signal: AbortSignal): Promise<void> => new Promise((resolve) => {
  const done = (): void => { leave(); resolve(); };
  const leave = session.watch(done);
  signal.addEventListener('abort', done, { once: true });
});

export const pauseRecording = (paused: boolean): void => {
  if (session.get().recording?.status === 'over') return;
  recorded({ status: paused ? 'paused' : 'playing' });
  line?.abort();
};

export const setSpeed = (speed: string): void => {
  recorded({ speed });
  line?.abort();
};

export function leaveRecording(): void {
  playing?.abort();
  line?.abort();
  playing = null;
  session.change({ recording: null });
}

// ---- Breakpoints

export function toggleBreakpoint(side: 'before' | 'after', node: string): void {
  const { breakpoints } = session.get();
  const list = breakpoints[side];
  session.change({ breakpoints: { ...breakpoints, [side]: list.includes(node) ? list.filter((one) => one !== node) : [...list, node] } });
}

/** The messages to show now: those of the state, and on top of them what the run has said. */
export function shownMessages(s: Session): RawMessage[] {
  if (s.recording) return merged(s.recording.messages, s.recording.run?.messages ?? []);
  if (s.past) return s.past.messages;
  return s.run?.status === 'running' ? merged(s.messages, s.run.messages) : s.messages;
}

export const lastText = (s: Session): string => shownMessages(s).map(readMessage).findLast(({ role, text }) => role === 'assistant' && text !== '')?.text ?? '';
