/** One turn of the conversation. */
import { memo, useState, type KeyboardEvent, type ReactElement } from 'react';
import { announce, app, complain, copy, openPanel } from '../app';
import { duration, money, named, nodeName, number, t, useLanguage } from '../i18n';
import { choicesOf, type Shown } from '../model/turns';
import type { Choice, Tree } from '../model/tree';
import type { Interrupt } from '../api/types';
import * as session from '../session';
import { IntentCard, NodeChips, ToolCard } from './Cards';
import { Icon, IconButton } from './Icon';
import { InterruptCard } from './InterruptCard';
import { JsonTree } from './JsonTree';
import { Markdown } from './Markdown';

interface Props { turn: Shown; tree: Tree; newest: boolean; busy: boolean; still: boolean; interrupts: Interrupt[] | null; next: string[] | null }

/** `still`: nothing may be done here, since it is a recording or a look at the past. */
export const TurnView = memo(function TurnView({ turn, tree, newest, busy, still, interrupts, next }: Props): ReactElement {
  useLanguage();
  const { user, segment } = turn;
  const [editing, setEditing] = useState(false);
  const choices = segment && !still ? choicesOf(tree, segment) : null;
  const running = turn.run?.status === 'running';
  const run = (work: Promise<void>): void => { work.catch(complain); };
  return (
    <article className="turn" data-turn={turn.key}>
      {user && (editing && segment
        ? <EditForm text={user.text} onCancel={() => setEditing(false)} onSend={(text) => { setEditing(false); run(session.edit(segment, turn.place, text)); }} />
        : (
          <div className="said-row">
            <div className="said"><h3 className="hidden">{t('chat.you')}</h3><p>{user.text}</p>{user.files > 0 && <p className="muted">{t('chat.files', { n: user.files })}</p>}</div>
            <div className="said-actions">
              {choices && <Switch choice={choices.said} label="turn.said" disabled={busy || still} />}
              <IconButton icon="copy" label={t('turn.copysaid')} onClick={() => void copy(user.text)} />
              {!still && segment && <IconButton icon="edit" label={t('turn.edit')} className="edit" onClick={() => setEditing(true)} disabled={busy} />}
            </div>
          </div>
        ))}
      <div className="reply">
        <h3 className="reply-name">{t('chat.agent')}</h3>
        <NodeChips chips={turn.chips} />
        {turn.intent && <IntentCard intent={turn.intent} />}
        {turn.items.map((item) => (item.kind === 'tool'
          ? <ToolCard key={item.id} tool={item.tool} />
          : <div key={item.id} className={`answer${item.open ? ' open' : ''}`} aria-busy={item.open}><Markdown text={item.text} /></div>))}
        {turn.run?.custom.map(({ data }, n) => <div key={n} className="custom"><span className="tag">{t('events.custom')}</span><JsonTree value={data} /></div>)}
        {running && <Doing turn={turn} />}
        {newest && !running && turn.run?.failure && <Failure turn={turn} disabled={busy || still} onRetry={() => run(session.goOn())} />}
        {newest && !running && !still && interrupts?.map((interrupt, n) => <InterruptCard key={interrupt.id ?? n} interrupt={interrupt} />)}
        {newest && !running && !still && !turn.run?.failure && next && next.length > 0 && !interrupts?.length && <Paused turn={turn} next={next} onGo={() => run(session.goOn())} />}
        {!running && (
          <footer className="reply-foot">
            {choices && <Switch choice={choices.reply} label="turn.reply" disabled={busy || still} />}
            {turn.text && <IconButton icon="copy" label={t('turn.copy')} onClick={() => void copy(turn.text)} />}
            {!still && segment?.steps[0] && user && <IconButton icon="again" className="regenerate" label={t('turn.regenerate')} disabled={busy} onClick={() => run(session.regenerate(segment, turn.place))} />}
            {turn.last && <IconButton icon="history" className="to-checkpoint" label={t('turn.checkpoint')} onClick={() => openPanel('timeline', turn.last?.checkpoint_id)} />}
            <Facts turn={turn} />
          </footer>
        )}
      </div>
    </article>
  );
});

function Facts({ turn }: { turn: Shown }): ReactElement {
  const { run, status } = turn;
  const stopped = run?.status === 'stopped' || status === 'cancelled';
  const first = run?.firstToken ? run.firstToken - run.from : null;
  const facts = [
    stopped ? t('turn.stopped') : '',
    turn.ms !== null && turn.ms >= 0 ? duration(turn.ms) : '',
    first !== null ? t('turn.firsttoken', { time: duration(first) }) : '',
    turn.tokens ? t('turn.tokens', { n: turn.tokens }) : '',
    turn.cost !== null && turn.cost > 0 ? money(turn.cost) : '',
  ].filter(Boolean);
  return <span className="facts muted">{facts.join(' · ')}</span>;
}

function Switch({ choice, label, disabled }: { choice: Choice; label: 'turn.said' | 'turn.reply'; disabled: boolean }): ReactElement | null {
  const { at, leaves } = choice;
  if (leaves.length < 2) return null;
  const go = (to: number): void => {
    const leaf = leaves[to];
    if (!leaf) return;
    void session.showLeaf(leaf).then(() => announce(t('turn.branch', { n: to + 1, total: leaves.length })));
  };
  return (
    <span className="switcher" role="group" aria-label={t(label)}>
      <IconButton icon="left" label={t('turn.previous')} onClick={() => go(at - 1)} disabled={disabled || at === 0} />
      <span className="switcher-at">{number(at + 1)} / {number(leaves.length)}</span>
      <IconButton icon="right" label={t('turn.next')} onClick={() => go(at + 1)} disabled={disabled || at === leaves.length - 1} />
    </span>
  );
}

function EditForm({ text, onCancel, onSend }: { text: string; onCancel: () => void; onSend: (text: string) => void }): ReactElement {
  const [value, setValue] = useState(text);
  const keys = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') { event.stopPropagation(); onCancel(); }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && value.trim()) onSend(value.trim());
  };
  return (
    <form className="edit-form" onSubmit={(event) => { event.preventDefault(); if (value.trim()) onSend(value.trim()); }}>
      <textarea aria-label={t('turn.edit')} value={value} onChange={(event) => setValue(event.target.value)} onKeyDown={keys} rows={Math.min(10, value.split('\n').length + 1)} autoFocus />
      <p className="muted hint">{t('turn.edit.hint')}</p>
      <div className="row">
        <button type="submit" className="button primary" disabled={!value.trim()}>{t('turn.edit.send')}</button>
        <button type="button" className="button" onClick={onCancel}>{t('page.cancel')}</button>
      </div>
    </form>
  );
}

function Doing({ turn }: { turn: Shown }): ReactElement {
  const active = turn.run?.nodes.findLast(({ state }) => state === 'active');
  const word = active ? named(`doing.${active.node}`, t('doing.other', { name: nodeName(active.node) })) : t('doing.start');
  return <p className="doing muted"><span className="pulse" aria-hidden="true" />{word}</p>;
}

const MODEL_ERRORS = ['model_unreachable', 'model_overloaded', 'model_timeout', 'model_stream_broken', 'model_refused', 'model_invalid', 'context_overflow'];

function Failure({ turn, disabled, onRetry }: { turn: Shown; disabled: boolean; onRetry: () => void }): ReactElement {
  const { failure } = turn.run ?? {};
  const kind = failure?.name ?? '';
  return (
    <div className="error" role="alert">
      <p><Icon name="warn" /><strong>{failure?.node ? t('error.node', { name: nodeName(failure.node) }) : t('error.title')}</strong></p>
      <p>{named(`error.${kind}`, failure?.message ?? '')}</p>
      {kind && <p className="muted"><code>{kind}</code>{MODEL_ERRORS.includes(kind) || !failure?.message || named(`error.${kind}`, '') === '' ? '' : ` ${failure.message}`}</p>}
      <div className="row">
        <button type="button" className="button" disabled={disabled} onClick={onRetry}><Icon name="again" />{t('turn.retry')}</button>
        <button type="button" className="button quiet" onClick={() => openPanel('events')}>{t('events.open')}</button>
      </div>
    </div>
  );
}

function Paused({ turn, next, onGo }: { turn: Shown; next: string[]; onGo: () => void }): ReactElement {
  const stopped = turn.run?.status === 'stopped' || turn.status === 'cancelled';
  return (
    <div className="question paused">
      <p><Icon name="pause" />{t(stopped ? 'paused.stopped' : 'paused.before', { name: next.map(nodeName).join(', ') })}</p>
      <div className="row">
        <button type="button" className="button primary" onClick={onGo}>{t('paused.go')}</button>
        <button type="button" className="button" onClick={() => { openPanel('timeline', turn.last?.checkpoint_id); app.change({ node: null }); }}>{t('paused.look')}</button>
      </div>
    </div>
  );
}
