/** What changed from one state to another. Lists of things with ids are compared by id, so that one more at the front is one more. */

export interface Change { kind: 'added' | 'removed' | 'changed'; path: string; before: unknown; after: unknown }

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields => value !== null && typeof value === 'object' && !Array.isArray(value);
const idOf = (value: unknown): string | null => (isObject(value) && typeof value.id === 'string' ? value.id : null);
const byIds = (list: unknown[]): boolean => list.length > 0 && list.every((one) => idOf(one) !== null) && new Set(list.map(idOf)).size === list.length;

export function diff(before: unknown, after: unknown, { limit = 500 } = {}): Change[] {
  const changes: Change[] = [];
  compare(before, after, '', changes, limit);
  return changes;
}

function compare(before: unknown, after: unknown, path: string, changes: Change[], limit: number): void {
  if (changes.length >= limit || Object.is(before, after)) return;
  if (isObject(before) && isObject(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      each(before, after, key, path ? `${path}.${key}` : key, changes, limit);
    }
  } else if (Array.isArray(before) && Array.isArray(after)) {
    if ((byIds(before) || before.length === 0) && (byIds(after) || after.length === 0)) lists(before, after, path, changes, limit);
    else for (let n = 0; n < Math.max(before.length, after.length); n += 1) {
      if (n >= before.length) changes.push({ kind: 'added', path: `${path}[${n}]`, before: undefined, after: after[n] });
      else if (n >= after.length) changes.push({ kind: 'removed', path: `${path}[${n}]`, before: before[n], after: undefined });
      else compare(before[n], after[n], `${path}[${n}]`, changes, limit);
    }
  } else if (before !== after) changes.push({ kind: 'changed', path, before, after });
}

function each(before: Fields, after: Fields, key: string, path: string, changes: Change[], limit: number): void {
  if (!(key in before)) changes.push({ kind: 'added', path, before: undefined, after: after[key] });
  else if (!(key in after)) changes.push({ kind: 'removed', path, before: before[key], after: undefined });
  else compare(before[key], after[key], path, changes, limit);
}

function lists(before: unknown[], after: unknown[], path: string, changes: Change[], limit: number): void {
  const old = new Map(before.map((one) => [idOf(one), one]));
  const now = new Set(after.map(idOf));
  before.forEach((one, n) => { if (!now.has(idOf(one))) changes.push({ kind: 'removed', path: `${path}[${n}]`, before: one, after: undefined }); });
  after.forEach((one, n) => {
    const known = old.get(idOf(one));
    if (known === undefined) changes.push({ kind: 'added', path: `${path}[${n}]`, before: undefined, after: one });
    else compare(known, one, `${path}[${n}]`, changes, limit);
  });
}
