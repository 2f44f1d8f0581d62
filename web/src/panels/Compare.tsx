/** Two branches side by side, step by step, aligned by node; the first difference is marked. */
import { useEffect, useMemo, useState, type ReactElement } from 'react';
import type { Checkpoint } from '../api/types';
import { app, complain } from '../app';
import { ago, t, useLanguage } from '../i18n';
import { diff, type Change } from '../model/diff';
import { useExternal } from '../model/external';
import { childrenOf, pathTo } from '../model/tree';
import * as session from '../session';
import { Changes, titleOf } from './Timeline';

interface Side { step: Checkpoint; changes: Change[]; print: string }
interface Row { left: Side | null; right: Side | null; same: boolean }

const AT_MOST = 60;

export default function Compare(): ReactElement {
  useLanguage();
  const { tree, threadId, leaf } = useExternal(session.session);
  const { compare } = useExternal(app);
  const leaves = useMemo(() => tree.all.filter(({ checkpoint_id: id }) => childrenOf(tree, id).length === 0).toReversed(), [tree]);
  const [left, setLeft] = useState(compare?.[0] ?? leaf ?? '');
  const [right, setRight] = useState(compare?.[1] ?? leaves.find(({ checkpoint_id: id }) => id !== (compare?.[0] ?? leaf))?.checkpoint_id ?? '');
  const [rows, setRows] = useState<Row[] | null>(null);
  const [common, setCommon] = useState<Checkpoint | null>(null);
  useEffect(() => {
    if (!threadId || !left || !right) return undefined;
    let gone = false;
    setRows(null);
    const [a, b] = [pathTo(tree, left), pathTo(tree, right)];
    let shared = 0;
    while (shared < a.length && a[shared]?.checkpoint_id === b[shared]?.checkpoint_id) shared += 1;
    setCommon(a[shared - 1] ?? null);
    Promise.all([sidesOf(threadId, a.slice(shared)), sidesOf(threadId, b.slice(shared))]).then(([one, other]) => { if (!gone) setRows(aligned(one, other)); }, complain);
    return () => { gone = true; };
  }, [threadId, left, right, tree]);
  if (leaves.length < 2) return <p className="muted">{t('compare.none')}</p>;
  const first = rows?.findIndex(({ same }) => !same) ?? -1;
  const pick = (value: string, set: (id: string) => void, label: string): ReactElement => (
    <label>{label}<select value={value} onChange={(event) => set(event.target.value)}>
      {leaves.map((end, n) => <option key={end.checkpoint_id} value={end.checkpoint_id}>{`${t('branches.nth', { n: leaves.length - n })} · ${t('checkpoints.step', { n: end.step })} · ${ago(end.created_at)}`}</option>)}
    </select></label>
  );
  return (
    <div className="compare">
      <div className="compare-pick">{pick(left, setLeft, t('compare.left'))}{pick(right, setRight, t('compare.right'))}</div>
      <p className="muted">{common ? t('compare.common', { n: common.step }) : t('compare.nocommon')} {t('compare.kept')}</p>
      {!rows && <p className="muted">{t('chat.loading')}</p>}
      {rows && first < 0 && <p className="tag compare-mark">{t('compare.same')}</p>}
      {rows && rows.length > 0 && (
        <ol className="compare-rows">
          {rows.map((row, n) => (
            <li key={n} className={n === first ? 'first-difference' : ''} data-same={row.same}>
              {n === first && <p className="tag compare-mark">{t('compare.first')}</p>}
              <SideView side={row.left} /><SideView side={row.right} />
            </li>
          ))}
        </ol>
      )}
    </div>
  );
}

const SideView = ({ side }: { side: Side | null }): ReactElement => (
  <div className={`compare-side${side ? '' : ' empty-side'}`}>{side ? <><h4>{titleOf(side.step)} <span className="muted">{t('checkpoints.step', { n: side.step.step })}</span></h4><Changes changes={side.changes} /></> : <p className="muted">{t('compare.missing')}</p>}</div>
);

async function sidesOf(threadId: string, path: Checkpoint[]): Promise<Side[]> {
  const sides: Side[] = [];
  for (const step of path.slice(0, AT_MOST)) {
    const [now, before] = await Promise.all([session.stateAt(threadId, step.checkpoint_id), step.parent_id ? session.stateAt(threadId, step.parent_id) : null]);
    const changes = diff(before?.values ?? {}, now.values ?? {});
    if (changes.length || step.nodes.length) sides.push({ step, changes, print: printOf(changes) });
  }
  return sides;
}

const PASSING = new Set(['id', 'tool_call_id', 'created_at', 'timestamp', 'usage_metadata', 'response_metadata']);

/** What a step did, without what differs between any two executions: ids and times. */
const printOf = (changes: Change[]): string =>
  JSON.stringify(changes.map(({ kind, after }) => [kind, after]), (key, value: unknown) => (PASSING.has(key) ? undefined : value));

/** The longest run of steps by the same nodes is put side by side. */
function aligned(a: Side[], b: Side[]): Row[] {
  const name = ({ step }: Side): string => `${step.source === 'input' ? 'input' : step.nodes.join()}`;
  const best = Array.from({ length: a.length + 1 }, () => Array.from({ length: b.length + 1 }, () => 0));
  const at = (n: number, m: number): number => best[n]?.[m] ?? 0;
  for (let n = a.length - 1; n >= 0; n -= 1) for (let m = b.length - 1; m >= 0; m -= 1) {
    const row = best[n];
    if (row) row[m] = name(a[n] as Side) === name(b[m] as Side) ? at(n + 1, m + 1) + 1 : Math.max(at(n + 1, m), at(n, m + 1));
  }
  const rows: Row[] = [];
  let [n, m] = [0, 0];
  while (n < a.length || m < b.length) {
    const [left, right] = [a[n] ?? null, b[m] ?? null];
    if (left && right && name(left) === name(right)) { rows.push({ left, right, same: left.print === right.print }); n += 1; m += 1; } else if (left && (!right || at(n + 1, m) >= at(n, m + 1))) { rows.push({ left, right: null, same: false }); n += 1; } else { rows.push({ left: null, right, same: false }); m += 1; }
  }
  return rows;
}
