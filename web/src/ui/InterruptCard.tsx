/** The graph asks and waits: approve, edit or reject what it wants to do, or answer whatever else it asks. */
import { useId, useState, type ReactElement } from 'react';
import type { Interrupt } from '../api/types';
import { complain } from '../app';
import { t, toolName, useLanguage } from '../i18n';
import * as session from '../session';
import { Icon } from './Icon';
import { JsonTree } from './JsonTree';

interface Action { name: string; args: unknown; description: string; allowed: Set<string> }
/** `new`: LangChain's HITLRequest, answered with decisions. `old`: LangGraph's list of HumanInterrupts. */
interface Request { shape: 'new' | 'old'; actions: Action[] }

type Fields = Record<string, unknown>;
const isFields = (value: unknown): value is Fields => value !== null && typeof value === 'object' && !Array.isArray(value);

export function requestIn(value: unknown): Request | null {
  if (isFields(value) && Array.isArray(value.action_requests)) {
    const configs = Array.isArray(value.review_configs) ? value.review_configs as Fields[] : [];
    const actions = (value.action_requests as Fields[]).map((action) => {
      const name = String(action.name ?? action.action ?? '');
      const config = configs.find((one) => one.action_name === name) ?? {};
      const allowed = Array.isArray(config.allowed_decisions) ? config.allowed_decisions as string[] : ['approve', 'edit', 'reject'];
      return { name, args: action.args ?? action.arguments ?? {}, description: String(action.description ?? ''), allowed: new Set(allowed) };
    });
    return actions.length ? { shape: 'new', actions } : null;
  }
  const list = Array.isArray(value) ? value : [value];
  if (list.length && list.every((one) => isFields(one) && isFields(one.action_request))) {
    const actions = (list as Fields[]).map((one) => {
      const asked = one.action_request as Fields;
      const config = isFields(one.config) ? one.config : {};
      const allowed = [config.allow_accept !== false && 'approve', config.allow_edit && 'edit', config.allow_ignore && 'reject', config.allow_respond && 'respond'].filter((one) => typeof one === 'string');
      return { name: String(asked.action ?? ''), args: asked.args ?? {}, description: String(one.description ?? ''), allowed: new Set(allowed) };
    });
    return { shape: 'old', actions };
  }
  return null;
}

interface Decision { kind: 'approve' | 'edit' | 'reject' | 'respond'; args: unknown; message: string }

function resumeOf({ shape, actions }: Request, decisions: Decision[]): unknown {
  if (shape === 'old') {
    return decisions.map(({ kind, args, message }, n) => {
      if (kind === 'approve') return { type: 'accept', args: null };
      if (kind === 'edit') return { type: 'edit', args: { action: actions[n]?.name, args } };
      return kind === 'respond' ? { type: 'response', args: message } : { type: 'ignore', args: null };
    });
  }
  return {
    decisions: decisions.map(({ kind, args, message }, n) => {
      if (kind === 'approve') return { type: 'approve' };
      if (kind === 'edit') return { type: 'edit', edited_action: { name: actions[n]?.name, args } };
      return { type: kind, ...(message ? { message } : {}) };
    }),
  };
}

export function InterruptCard({ interrupt }: { interrupt: Interrupt }): ReactElement {
  useLanguage();
  const request = requestIn(interrupt.value);
  return request ? <Approval interrupt={interrupt} request={request} /> : <Question interrupt={interrupt} />;
}

const answer = (interrupt: Interrupt, value: unknown): void => { void session.answer(interrupt, value).catch(complain); };

function Approval({ interrupt, request }: { interrupt: Interrupt; request: Request }): ReactElement {
  const [decisions, setDecisions] = useState<(Decision | null)[]>(request.actions.map(() => null));
  const decide = (n: number, decision: Decision | null): void => {
    const next = decisions.map((one, at) => (at === n ? decision : one));
    setDecisions(next);
    if (next.every((one) => one !== null)) answer(interrupt, resumeOf(request, next));
  };
  return (
    <section className="question approval" aria-label={t('approval.title')}>
      <h4><Icon name="warn" />{t('approval.title')}</h4>
      {request.actions.map((action, n) => <ActionCard key={n} action={action} decided={decisions[n] ?? null} onDecide={(decision) => decide(n, decision)} />)}
    </section>
  );
}

function ActionCard({ action, decided, onDecide }: { action: Action; decided: Decision | null; onDecide: (decision: Decision | null) => void }): ReactElement {
  const [mode, setMode] = useState<'edit' | 'reject' | 'respond' | null>(null);
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState('');
  const id = useId();
  const begin = (next: 'edit' | 'reject' | 'respond'): void => { setMode(next); setWrong(''); setText(next === 'edit' ? JSON.stringify(action.args, null, 2) : ''); };
  const send = (): void => {
    if (mode !== 'edit') { onDecide({ kind: mode ?? 'reject', args: null, message: text.trim() }); return; }
    try {
      onDecide({ kind: 'edit', args: JSON.parse(text) as unknown, message: '' });
    } catch (error) {
      setWrong(t('json.wrong', { why: (error as Error).message }));
    }
  };
  if (decided) return <div className="action"><strong>{toolName(action.name)}</strong> <span className="tag">{t(`approval.did.${decided.kind}`)}</span></div>;
  return (
    <div className="action">
      <div><strong>{toolName(action.name)}</strong>{action.description && <p className="plain">{action.description}</p>}</div>
      {mode === null && <JsonTree value={action.args} open />}
      {mode === null ? (
        <div className="row">
          {action.allowed.has('approve') && <button type="button" className="button primary" onClick={() => onDecide({ kind: 'approve', args: null, message: '' })}>{t('approval.approve')}</button>}
          {action.allowed.has('edit') && <button type="button" className="button" onClick={() => begin('edit')}>{t('approval.edit')}</button>}
          {action.allowed.has('respond') && <button type="button" className="button" onClick={() => begin('respond')}>{t('approval.respond')}</button>}
          {action.allowed.has('reject') && <button type="button" className="button danger-quiet" onClick={() => begin('reject')}>{t('approval.reject')}</button>}
        </div>
      ) : (
        <form onSubmit={(event) => { event.preventDefault(); send(); }}>
          <label htmlFor={id}>{t(mode === 'edit' ? 'approval.args' : 'approval.why')}</label>
          <textarea id={id} className={mode === 'edit' ? 'mono' : ''} rows={mode === 'edit' ? 5 : 2} value={text} onChange={(event) => setText(event.target.value)} autoFocus aria-invalid={wrong !== ''} />
          {wrong && <p className="wrong" role="alert">{wrong}</p>}
          <div className="row">
            <button type="submit" className="button primary">{t(mode === 'edit' ? 'approval.run' : mode === 'respond' ? 'approval.respond' : 'approval.reject')}</button>
            <button type="button" className="button" onClick={() => setMode(null)}>{t('page.cancel')}</button>
          </div>
        </form>
      )}
    </div>
  );
}

function Question({ interrupt }: { interrupt: Interrupt }): ReactElement {
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState('');
  const id = useId();
  const { value } = interrupt;
  const fields = isFields(value) ? value : {};
  const asked = typeof value === 'string' ? value : [fields.question, fields.message, fields.text].find((one) => typeof one === 'string');
  const options = Array.isArray(fields.options) ? fields.options.filter((one) => typeof one === 'string') : [];
  const { question: _q, message: _m, text: _t, ...others } = fields;
  const more = typeof value === 'string' ? null : isFields(value) && typeof asked === 'string' ? (Object.keys(others).length ? others : null) : value;
  const send = (): void => {
    const said = text.trim();
    if (!/^[[{"]/.test(said)) { answer(interrupt, said); return; }
    try {
      answer(interrupt, JSON.parse(said));
    } catch (error) {
      setWrong(t('json.wrong', { why: (error as Error).message }));
    }
  };
  return (
    <section className="question" aria-label={t('interrupt.title')}>
      <h4><Icon name="wait" />{t('interrupt.title')}</h4>
      {typeof asked === 'string' && <p className="question-text">{asked}</p>}
      {more !== null && more !== undefined && <JsonTree value={more} open />}
      {options.length > 0 && <div className="row">{options.map((option) => <button key={option} type="button" className="button" onClick={() => answer(interrupt, option)}>{option}</button>)}</div>}
      <form onSubmit={(event) => { event.preventDefault(); send(); }}>
        <label htmlFor={id}>{t('interrupt.answer')}</label>
        <textarea id={id} rows={2} value={text} onChange={(event) => setText(event.target.value)} aria-invalid={wrong !== ''} />
        {wrong && <p className="wrong" role="alert">{wrong}</p>}
        <p className="muted hint">{t('interrupt.hint')}</p>
        <button type="submit" className="button primary">{t('interrupt.send')}</button>
      </form>
    </section>
  );
}
