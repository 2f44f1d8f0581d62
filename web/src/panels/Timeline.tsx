/** All checkpoints of a session: what each holds, what it changed, and every way to go on from it. */
import { useEffect, useMemo, useState, type FormEvent, type ReactElement } from 'react';
import * as own from '../api/own';
import type { Checkpoint, Dict, ThreadState } from '../api/types';
import { app, complain, copy, openPanel, selectCheckpoint, show, tell, type View } from '../app';
import { ago, moment, named, nodeName, number, t, toolName, useLanguage } from '../i18n';
import { diff, type Change } from '../model/diff';
import { useExternal } from '../model/external';
import { readMessage } from '../model/messages';
import { childrenOf, pathTo, type Tree } from '../model/tree';
import { server } from '../server';
import * as session from '../session';
import { Icon, IconButton } from '../ui/Icon';
import { JsonTree } from '../ui/JsonTree';
import { Virtual } from '../ui/Virtual';

const ROW = 40;

/** What a checkpoint is called: the nodes it follows, or where it came from. */
export function titleOf({ nodes, source }: Checkpoint): string {
  const ran = nodes.filter((name) => !name.startsWith('__'));
  return ran.length && source === 'loop' ? ran.map(nodeName).join(', ') : named(`checkpoints.source.${source}`, source);
}

export default function Timeline(): ReactElement {
  useLanguage();
  const s = useExternal(session.session);
  const { checkpoint: chosenId } = useExternal(app);
  const [all, setAll] = useState(false);
  const path = useMemo(() => pathTo(s.tree, s.leaf).toReversed(), [s.tree, s.leaf]);
  const onPath = useMemo(() => new Set(path.map(({ checkpoint_id }) => checkpoint_id)), [path]);
  const outside = chosenId !== null && !onPath.has(chosenId) && s.tree.byId.has(chosenId);
  const items = all || outside ? s.tree.all.toReversed() : path;
  const at = Math.max(0, chosenId ? items.findIndex(({ checkpoint_id }) => checkpoint_id === chosenId) : 0);
  const item = items[at] ?? null;
  // A link may name a checkpoint further back than what has been read.
  const missing = chosenId !== null && s.older !== null && !s.tree.byId.has(chosenId);
  useEffect(() => { if (missing || (s.older !== null && at + 5 >= items.length)) void session.readOlder(); }, [missing, s.older, at, items.length]);
  const step = (to: number): void => { const next = items[to]; if (next) selectCheckpoint(next.checkpoint_id); };
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || document.querySelector('dialog[open]')) return;
      if (event.target instanceof HTMLElement && event.target.closest('input, textarea, select, pre, [contenteditable]')) return;
      if (event.key === 'ArrowLeft') step(at + 1);
      else if (event.key === 'ArrowRight') step(at - 1);
      else if (event.key === 'Home') step(items.length - 1);
      else if (event.key === 'End') step(0);
      else return;
      event.preventDefault();
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  });
  const busy = session.isBusy(s);
  useEffect(() => { if (!busy && !s.recording) void session.lookAt(chosenId && item?.checkpoint_id === chosenId ? item : null).catch(complain); }, [chosenId, item?.checkpoint_id, busy]);
  if (!item) return <p className="muted padded">{t(s.threadId && !s.complete ? 'chat.loading' : 'checkpoints.none')}</p>;
  return (
    <div className="timeline-panel">
      <div className="toolbar">
        <IconButton icon="left" label={t('checkpoints.older')} onClick={() => step(at + 1)} disabled={at + 1 >= items.length} />
        <span className="position" aria-live="polite">{t('checkpoints.position', { n: items.length - at, total: `${number(items.length)}${s.complete ? '' : '+'}` })}</span>
        <IconButton icon="right" label={t('checkpoints.newer')} onClick={() => step(at - 1)} disabled={at === 0} />
        <label className="check"><input type="checkbox" checked={all || outside} onChange={(event) => setAll(event.target.checked)} />{t('checkpoints.all')}</label>
      </div>
      <Virtual className="timeline" items={items} height={ROW} current={at} label={t('checkpoints.title')} onEnd={s.older ? () => void session.readOlder() : undefined} keyOf={(one) => one.checkpoint_id} draw={(one, n) => (
        <Moment one={one} current={n === at} other={!onPath.has(one.checkpoint_id)} begins={one.source === 'input'} forks={childrenOf(s.tree, one.checkpoint_id).length > 1} />
      )} />
      <Branches tree={s.tree} leaf={s.leaf} />
      <Detail key={item.checkpoint_id} item={item} busy={busy} newest={at === 0} />
    </div>
  );
}

function Moment({ one, current, other, begins, forks }: { one: Checkpoint; current: boolean; other: boolean; begins: boolean; forks: boolean }): ReactElement {
  return (
    <button type="button" className={`moment${other ? ' other' : ''}${begins ? ' begins' : ''}`} data-checkpoint={one.checkpoint_id} aria-current={current ? 'step' : undefined} onClick={() => selectCheckpoint(one.checkpoint_id)}>
      <span className="moment-step">{one.step}</span>
      <span className="moment-title">{one.name ?? titleOf(one)}</span>
      {forks && <span title={t('branches.forks')}><Icon name="fork" /></span>}
      {one.pinned && <span title={t('checkpoints.pinned')}><Icon name="pin" /></span>}
      <span className="moment-time">{ago(one.created_at)}</span>
    </button>
  );
}

/** Every way the session went, by the checkpoint each ends in. */
function Branches({ tree, leaf }: { tree: Tree; leaf: string | null }): ReactElement | null {
  const { threadId } = useExternal(session.session);
  const { own: ours } = useExternal(server);
  const [kept, setKept] = useState<own.Branch[] | null>(null);
  const [renaming, setRenaming] = useState<string | null>(null);
  const leaves = useMemo(() => tree.all.filter(({ checkpoint_id }) => childrenOf(tree, checkpoint_id).length === 0).toReversed(), [tree]);
  useEffect(() => { if (ours && threadId && leaves.length > 1) own.branches(threadId).then(setKept, complain); }, [ours, threadId, leaves.length]);
  if (leaves.length < 2) return null;
  const forkOf = (end: Checkpoint): { fork: Checkpoint | null; first: Checkpoint } => {
    let first = end;
    for (let parent = end.parent_id ? tree.byId.get(end.parent_id) : undefined; parent; parent = parent.parent_id ? tree.byId.get(parent.parent_id) : undefined) {
      if (childrenOf(tree, parent.checkpoint_id).length > 1) return { fork: parent, first };
      first = parent;
    }
    return { fork: null, first };
  };
  const change = (work: (id: string) => Promise<unknown>): void => {
    if (threadId) work(threadId).then(() => own.branches(threadId)).then(setKept).then(() => session.refresh()).catch(complain);
  };
  const name = (branch: own.Branch, given: string): void => {
    setRenaming(null);
    const wanted = given.trim() || null;
    if (wanted !== branch.name) change((id) => own.nameBranch(id, branch.branch_id, wanted));
  };
  return (
    <details className="branches">
      <summary><Icon name="fork" />{t('branches.title', { n: leaves.length })}</summary>
      <ul>
        {leaves.slice(0, 50).map((end, n) => {
          const branch = kept?.find(({ head_checkpoint_id: head }) => head === end.checkpoint_id);
          const { fork } = forkOf(end);
          return (
            <li key={end.checkpoint_id}>
              {renaming === end.checkpoint_id && branch
                ? <input aria-label={t('branches.name')} defaultValue={branch.name ?? ''} autoFocus onBlur={(event) => name(branch, event.target.value)} onKeyDown={(event) => { if (event.key === 'Enter') name(branch, event.currentTarget.value); if (event.key === 'Escape') { event.stopPropagation(); setRenaming(null); } }} />
                : (
                  <button type="button" className="button quiet" aria-pressed={leaf === end.checkpoint_id} onClick={() => { selectCheckpoint(null); void session.showLeaf(end.checkpoint_id); }}>
                    <strong>{branch?.name ?? t('branches.nth', { n: leaves.length - n })}</strong>
                    <span className="muted">{[fork ? t('branches.from', { n: fork.step }) : '', titleOf(end), ago(end.created_at)].filter(Boolean).join(' · ')}</span>
                  </button>
                )}
              {branch?.main && <span className="tag">{t('branches.main')}</span>}
              {branch && renaming !== end.checkpoint_id && <IconButton icon="edit" className="name-branch" label={t('branches.name')} onClick={() => setRenaming(end.checkpoint_id)} />}
              {branch && !branch.main && <IconButton icon="check" className="promote" label={t('branches.promote')} onClick={() => change((id) => own.switchBranch(id, branch.branch_id, true))} />}
              {leaf && leaf !== end.checkpoint_id && <IconButton icon="compare" label={t('compare.with')} onClick={() => { app.change({ compare: [leaf, end.checkpoint_id] }); show('compare'); }} />}
            </li>
          );
        })}
      </ul>
    </details>
  );
}

const VIEWS: View[] = ['changes', 'messages', 'state'];

function Detail({ item, busy, newest }: { item: Checkpoint; busy: boolean; newest: boolean }): ReactElement {
  const { threadId } = useExternal(session.session);
  const { own: ours } = useExternal(server);
  const { view } = useExternal(app);
  const [state, setState] = useState<ThreadState | null>(null);
  const [changes, setChanges] = useState<Change[] | null>(null);
  const [editing, setEditing] = useState(false);
  useEffect(() => {
    if (!threadId) return undefined;
    let gone = false;
    session.stateAt(threadId, item.checkpoint_id).then((read) => { if (!gone) setState(read); }, complain);
    return () => { gone = true; };
  }, [threadId, item.checkpoint_id]);
  useEffect(() => {
    if (view !== 'changes' || !threadId || !state) return undefined;
    let gone = false;
    const before = item.parent_id ? session.stateAt(threadId, item.parent_id).then(({ values }) => values ?? {}) : Promise.resolve({});
    before.then((values) => { if (!gone) setChanges(diff(values, state.values ?? {})); }, complain);
    return () => { gone = true; };
  }, [view, threadId, state, item.parent_id]);
  const over = item.next.length === 0;
  const pin = (): void => {
    if (!threadId) return;
    (item.pinned ? own.unpin(threadId, item.checkpoint_id) : own.pin(threadId, item.checkpoint_id, null)).then(() => session.readCheckpoints({ anew: true }), complain);
  };
  const messages = Array.isArray(state?.values?.messages) ? state.values.messages as Parameters<typeof readMessage>[0][] : [];
  return (
    <div className="detail" data-checkpoint={item.checkpoint_id}>
      <h3 className="detail-title">{t('checkpoints.step', { n: item.step })} <span className="muted">{item.name ?? titleOf(item)}</span></h3>
      <dl className="detail-facts">
        <dt>{t('checkpoints.nodes')}</dt><dd>{titleOf(item)}</dd>
        <dt>{t('checkpoints.next')}</dt><dd>{over ? t('checkpoints.next.none') : item.next.map(nodeName).join(', ')}</dd>
        <dt>{t('checkpoints.time')}</dt><dd><time dateTime={item.created_at}>{moment(item.created_at)}</time></dd>
      </dl>
      <div className="detail-actions">
        {ours && <Action icon="film" label={over && newest ? 'checkpoints.replay.all' : 'checkpoints.replay'} hint="checkpoints.replay.hint" disabled={busy} onClick={() => void session.playRecording(over && newest ? null : item, '1').catch(complain)} />}
        <Action icon="again" label="checkpoints.rerun" hint={over ? 'checkpoints.rerun.end' : 'checkpoints.rerun.hint'} disabled={busy || over} onClick={() => { openPanel('timeline'); void session.rerun(item).catch(complain); }} />
        <Action icon="fork" label="checkpoints.fork" hint="checkpoints.fork.hint" disabled={busy || !state} onClick={() => setEditing(!editing)} />
        <div className="row">
          {ours && <button type="button" className="button small" aria-pressed={item.pinned ?? false} onClick={pin}><Icon name="pin" />{t(item.pinned ? 'checkpoints.unpin' : 'checkpoints.pin')}</button>}
          <button type="button" className="button small" onClick={() => void copy(location.href)}><Icon name="copy" />{t('page.copylink')}</button>
        </div>
      </div>
      {editing && state && <Fork item={item} values={state.values ?? {}} onEnd={() => setEditing(false)} />}
      <div className="switch" role="group" aria-label={t('checkpoints.view')}>
        {VIEWS.map((one) => <button key={one} type="button" data-view={one} aria-pressed={view === one} onClick={() => app.change({ view: one })}>{t(`checkpoints.${one}`)}</button>)}
      </div>
      {!state ? <p className="muted">{t('chat.loading')}</p> : (
        <>
          {view === 'messages' && (messages.length ? <ol className="state-messages">{messages.length > 60 && <li className="muted">{t('chat.earlier', { n: messages.length - 60 })}</li>}{messages.slice(-60).map((raw, n) => <MessageRow key={raw.id ?? n} raw={raw} />)}</ol> : <p className="muted">{t('checkpoints.messages.none')}</p>)}
          {view === 'state' && <div className="whole-state"><JsonTree value={state.values ?? {}} open /></div>}
          {view === 'changes' && (changes ? <Changes changes={changes} /> : <p className="muted">{t('chat.loading')}</p>)}
        </>
      )}
      <p className="muted hint not-phone">{t('checkpoints.keys')}</p>
    </div>
  );
}

type Key = Parameters<typeof t>[0];

const Action = ({ icon, label, hint, disabled, onClick }: { icon: Parameters<typeof Icon>[0]['name']; label: Key; hint: Key; disabled: boolean; onClick: () => void }): ReactElement => (
  <div className="detail-action"><button type="button" className="button" disabled={disabled} onClick={onClick}><Icon name={icon} />{t(label)}</button><p className="muted">{t(hint)}</p></div>
);

const BRIEF = 600;

function MessageRow({ raw }: { raw: Parameters<typeof readMessage>[0] }): ReactElement {
  const message = readMessage(raw);
  return (
    <li data-role={message.role}>
      <span className="role">{t(`role.${message.role}`)}{message.role === 'tool' && message.name && ` · ${toolName(message.name)}`}</span>
      {message.text && <p className="plain">{message.text.length > BRIEF ? `${message.text.slice(0, BRIEF)}…` : message.text}</p>}
      {message.calls.map((call) => <p key={call.id} className="call">{t('checkpoints.calls', { name: toolName(call.name) })} <code>{JSON.stringify(call.args)}</code></p>)}
    </li>
  );
}

const brief = (value: unknown): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 1) ?? '';
  return text.length > BRIEF ? `${text.slice(0, BRIEF)}…` : text;
};

export function Changes({ changes }: { changes: Change[] }): ReactElement {
  if (changes.length === 0) return <p className="muted">{t('diff.none')}</p>;
  return (
    <ul className="changes">
      {changes.slice(0, 200).map((change, n) => (
        <li key={n} data-change={change.kind}>
          <span className="change-head"><span className="tag">{t(`diff.${change.kind}`)}</span> <code>{change.path}</code></span>
          {change.kind !== 'added' && <pre className="before" tabIndex={0}>{brief(change.before)}</pre>}
          {change.kind !== 'removed' && <pre className="after" tabIndex={0}>{brief(change.after)}</pre>}
        </li>
      ))}
    </ul>
  );
}

/** A changed state after a checkpoint: the last message in other words, or any of its values. */
function Fork({ item, values, onEnd }: { item: Checkpoint; values: Dict; onEnd: () => void }): ReactElement {
  const { tree } = useExternal(session.session);
  const messages = Array.isArray(values.messages) ? values.messages as Parameters<typeof readMessage>[0][] : [];
  const last = messages.at(-1);
  const editable = last !== undefined && typeof last.content === 'string';
  const [raw, setRaw] = useState(!editable);
  const [said, setSaid] = useState(editable ? String(last.content) : '');
  const [text, setText] = useState(() => JSON.stringify(values, null, 2));
  const [node, setNode] = useState(item.nodes[0] ?? '');
  const [wrong, setWrong] = useState('');
  const nodes = [...new Set(tree.all.flatMap(({ nodes, next }) => [...nodes, ...next]))].filter((name) => !name.startsWith('__'));
  const send = (event: FormEvent): void => {
    event.preventDefault();
    let changed: Dict;
    try {
      changed = raw ? changedOf(values, JSON.parse(text) as Dict) : { messages: [{ ...last, content: said }] };
    } catch (error) {
      setWrong(t('json.wrong', { why: (error as Error).message }));
      return;
    }
    onEnd();
    selectCheckpoint(null);
    session.fork(item, changed, node || null).then(() => tell(t('checkpoints.forked')), complain);
  };
  return (
    <form className="fork-form" onSubmit={send}>
      <p className="muted">{t('checkpoints.fork.text')}</p>
      {editable && <label className="check"><input type="checkbox" checked={raw} onChange={(event) => setRaw(event.target.checked)} />{t('checkpoints.fork.raw')}</label>}
      {raw ? <textarea aria-label={t('checkpoints.state')} className="mono" rows={12} value={text} onChange={(event) => setText(event.target.value)} spellCheck={false} />
        : <textarea aria-label={t('checkpoints.fork.message')} rows={4} value={said} onChange={(event) => setSaid(event.target.value)} />}
      {wrong && <p className="wrong" role="alert">{wrong}</p>}
      <label className="inline">{t('checkpoints.fork.as')} <select value={node} onChange={(event) => setNode(event.target.value)}><option value="">{t('checkpoints.fork.auto')}</option>{nodes.map((name) => <option key={name} value={name}>{nodeName(name)}</option>)}</select></label>
      <div className="row"><button type="submit" className="button primary">{t('checkpoints.fork.go')}</button><button type="button" className="button" onClick={onEnd}>{t('page.cancel')}</button></div>
    </form>
  );
}

/** Only what was changed is written: the rest is kept by the graph. */
function changedOf(before: Dict, after: Dict): Dict {
  if (after === null || typeof after !== 'object' || Array.isArray(after)) throw new Error(t('json.object'));
  return Object.fromEntries(Object.entries(after).flatMap(([key, value]) => {
    const old = before[key];
    if (JSON.stringify(value) === JSON.stringify(old)) return [];
    if (!Array.isArray(value) || !Array.isArray(old) || key !== 'messages') return [[key, value]];
    const known = new Map((old as Dict[]).map((one) => [one.id, JSON.stringify(one)]));
    const kept = new Set((value as Dict[]).map((one) => one.id));
    const gone = (old as Dict[]).filter(({ id }) => id && !kept.has(id)).map(({ id }) => ({ type: 'remove', id, content: '' }));
    return [[key, [...gone, ...(value as Dict[]).filter((one) => known.get(one.id) !== JSON.stringify(one))]]];
  }));
}
