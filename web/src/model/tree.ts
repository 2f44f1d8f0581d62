/** The checkpoints of a thread are a tree by parent. A branch is a path in it; where it forks there is something to choose. */
import type { Checkpoint, ThreadState } from '../api/types';

export interface Tree { byId: Map<string, Checkpoint>; children: Map<string | null, Checkpoint[]>; all: Checkpoint[] }

const byAge = (a: Checkpoint, b: Checkpoint): number => (a.checkpoint_id < b.checkpoint_id ? -1 : 1);

/** Checkpoint ids rise with time. A parent that retention has taken, or that is not read yet, makes a root. */
export function treeOf(checkpoints: readonly Checkpoint[]): Tree {
  const all = [...checkpoints].sort(byAge);
  const byId = new Map(all.map((one) => [one.checkpoint_id, one]));
  const children = new Map<string | null, Checkpoint[]>();
  for (const one of all) {
    const parent = one.parent_id && byId.has(one.parent_id) ? one.parent_id : null;
    const siblings = children.get(parent);
    if (siblings) siblings.push(one);
    else children.set(parent, [one]);
  }
  return { byId, children, all };
}

export const childrenOf = (tree: Tree, id: string | null): Checkpoint[] => tree.children.get(id) ?? [];

/** The newest checkpoint that came of one, which may be itself. */
export function leafOf(tree: Tree, id: string): string {
  let newest = id;
  const left = [id];
  for (let one = left.pop(); one !== undefined; one = left.pop()) {
    if (one > newest) newest = one;
    for (const child of childrenOf(tree, one)) left.push(child.checkpoint_id);
  }
  return newest;
}

/** From the first checkpoint to this one. */
export function pathTo(tree: Tree, id: string | null): Checkpoint[] {
  const path: Checkpoint[] = [];
  for (let one = id ? tree.byId.get(id) : undefined; one; one = one.parent_id ? tree.byId.get(one.parent_id) : undefined) path.push(one);
  return path.toReversed();
}

/** What a turn left behind: its input, and every step up to the next input. */
export interface Segment { input: Checkpoint; steps: Checkpoint[] }

export function segmentsOf(path: readonly Checkpoint[]): Segment[] {
  const segments: Segment[] = [];
  for (const one of path) {
    // Of a turn whose beginning has not been read nothing can be done.
    const begins = one.source === 'input' || one.parent_id === null;
    if (segments.length === 0 && !begins) continue;
    if (one.source === 'input' || segments.length === 0) segments.push({ input: one, steps: [] });
    else segments.at(-1)?.steps.push(one);
  }
  return segments.filter(({ input, steps }) => steps.length > 0 || input.source !== 'input' || input === path.at(-1));
}

/** Leaves to choose among, and which of them is on the path. */
export interface Choice { at: number; leaves: string[] }

const asks = (one: Checkpoint): boolean => one.source === 'input';

/** The other things that were said in place of a turn's message. */
export function saidChoices(tree: Tree, { input }: Segment): Choice {
  const parent = input.parent_id ? tree.byId.get(input.parent_id) : undefined;
  // The first message has no checkpoint before it: what is said in its place comes after its own input.
  const first = parent && asks(parent) ? parent : parent ? null : input;
  const inputs = first ? [first, ...childrenOf(tree, first.checkpoint_id).filter(asks)] : childrenOf(tree, parent?.checkpoint_id ?? null).filter(asks);
  const leaves = inputs.map((one) => (one === first ? ownLeaf(tree, one) : leafOf(tree, one.checkpoint_id)));
  return { at: Math.max(0, inputs.findIndex((one) => one.checkpoint_id === input.checkpoint_id)), leaves };
}

const ownLeaf = (tree: Tree, input: Checkpoint): string => {
  const steps = childrenOf(tree, input.checkpoint_id).filter((one) => !asks(one));
  return steps.reduce((newest, one) => { const leaf = leafOf(tree, one.checkpoint_id); return leaf > newest ? leaf : newest; }, input.checkpoint_id);
};

/** The other ways a turn went on after its message. */
export function replyChoices(tree: Tree, { input, steps }: Segment): Choice {
  const last = steps.at(-1);
  if (!last) return { at: 0, leaves: [] };
  const ends: Checkpoint[] = [];
  const left = childrenOf(tree, input.checkpoint_id).filter((one) => !asks(one)).toReversed();
  for (let one = left.pop(); one; one = left.pop()) {
    const further = childrenOf(tree, one.checkpoint_id).filter((child) => !asks(child));
    if (further.length === 0) ends.push(one);
    else left.push(...further.toReversed());
  }
  // A step that another was forked from and that goes on nowhere itself is no way of its own.
  ends.sort(byAge);
  const at = ends.findIndex((one) => one.checkpoint_id === last.checkpoint_id);
  return { at: Math.max(0, at), leaves: ends.map((one) => leafOf(tree, one.checkpoint_id)) };
}

/** Where a turn's message is in, and nothing has been made of it yet. */
export const firstStep = (segment: Segment): Checkpoint | null => segment.steps[0] ?? null;

/** The checkpoint a message takes the place of another from. */
export const baseOf = (segment: Segment): string => segment.input.parent_id ?? segment.input.checkpoint_id;

/** A checkpoint of a server that tells whole states only. */
export function briefOf(state: ThreadState, older: ThreadState | undefined): Checkpoint {
  const metadata = state.metadata ?? {};
  const writes = metadata.writes && typeof metadata.writes === 'object' ? Object.keys(metadata.writes) : null;
  const source = typeof metadata.source === 'string' ? metadata.source : 'loop';
  const parent = state.parent_checkpoint?.checkpoint_id ?? null;
  const before = older && older.checkpoint?.checkpoint_id === parent ? older.next.filter((name) => name !== '__start__') : [];
  return {
    checkpoint_id: state.checkpoint?.checkpoint_id ?? '',
    parent_id: parent,
    step: typeof metadata.step === 'number' ? metadata.step : 0,
    source,
    nodes: source === 'loop' ? writes ?? before : [],
    next: state.next,
    created_at: state.created_at ?? '',
    run_id: typeof metadata.run_id === 'string' ? metadata.run_id : null,
  };
}
