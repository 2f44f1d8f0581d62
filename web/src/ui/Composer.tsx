/** Where the message is written. Its draft is kept for each session. */
import { useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactElement } from 'react';
import { complain, words } from '../app';
import { t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import { server } from '../server';
import * as lg from '../api/langgraph';
import * as session from '../session';
import { IconButton } from './Icon';

const DRAFT = 'threadline.draft.';
const slot = (threadId: string | null): string => DRAFT + (threadId ?? 'new');

export function Composer(): ReactElement {
  useLanguage();
  const { threadId, run, stopping, messages } = useExternal(session.session);
  const { assistantId, status } = useExternal(server);
  const running = run?.status === 'running';
  const [text, setText] = useState(() => localStorage.getItem(slot(threadId)) ?? '');
  const [speaks, setSpeaks] = useState(true);
  const field = useRef<HTMLTextAreaElement>(null);
  const open = useRef(threadId);
  useEffect(() => {
    // A new session gets its id when its first message is sent: what is being written meanwhile goes with it.
    if (open.current === null && threadId !== null && running) { if (text) localStorage.setItem(slot(threadId), text); localStorage.removeItem(slot(null)); } else setText(localStorage.getItem(slot(threadId)) ?? '');
    open.current = threadId;
  }, [threadId]);
  useEffect(() => {
    if (status !== 'ready') return undefined;
    let gone = false;
    lg.schemas(assistantId).then(({ input_schema: input, state_schema: state }) => {
      const schema = input ?? state;
      const fields = schema?.properties;
      if (!gone) setSpeaks(!fields || 'messages' in fields || Object.keys(fields).length === 0 || messages.length > 0);
    }, () => undefined);
    return () => { gone = true; };
  }, [assistantId, status]);
  useLayoutEffect(() => {
    const box = field.current;
    if (!box) return;
    box.style.height = 'auto';
    box.style.height = `${Math.min(box.scrollHeight, 220)}px`;
  }, [text]);

  const write = (value: string): void => {
    setText(value);
    if (value) localStorage.setItem(slot(threadId), value);
    else localStorage.removeItem(slot(threadId));
  };
  const submit = (): void => {
    const said = text.trim();
    if (said === '') return;
    if (!speaks) {
      try {
        const input = JSON.parse(said) as unknown;
        write('');
        session.give(input).catch(complain);
      } catch (error) {
        complain(new Error(t('json.wrong', { why: (error as Error).message })));
      }
      return;
    }
    write('');
    session.say(said).catch((error: unknown) => { write(said); complain(error instanceof Error ? error : new Error(words(error))); });
  };
  const keys = (event: KeyboardEvent): void => {
    // While a Korean syllable is being composed, Enter only ends it (keyCode 229 is how Safari says so).
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing || event.keyCode === 229) return;
    if (!speaks && !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    submit();
  };
  return (
    <>
      <form className="composer" onSubmit={(event) => { event.preventDefault(); submit(); }}>
        <label className="hidden" htmlFor="composer">{t('chat.message')}</label>
        <textarea id="composer" ref={field} rows={1} value={text} placeholder={t(speaks ? 'chat.placeholder' : 'chat.json')} autoComplete="off" enterKeyHint="send" className={speaks ? '' : 'mono'}
          onChange={(event) => write(event.target.value)} onKeyDown={keys} />
        {running && <IconButton icon="stop" id="stop" className="send stop" label={t(stopping ? 'chat.stopping' : 'chat.stop')} onClick={() => void session.stop()} disabled={stopping || !run?.runId} />}
        {(!running || text.trim() !== '') && (
          <IconButton icon="up" id="send" className="send" label={t(running ? 'chat.queue' : 'chat.send')} onClick={submit} disabled={text.trim() === ''} />
        )}
      </form>
      <p className="hint not-phone">{t(speaks ? 'chat.hint' : 'chat.hint.json')}</p>
    </>
  );
}
