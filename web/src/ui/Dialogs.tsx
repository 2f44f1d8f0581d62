/** Everything that is asked or shown above the page. */
import { lazy, Suspense, useEffect, useMemo, useRef, useState, type ReactElement } from 'react';
import { app, complain, show, type App as AppState } from '../app';
import { t, useLanguage, type Key } from '../i18n';
import { useExternal } from '../model/external';
import * as session from '../session';
import { remove, sessions } from '../sessions';
import { commands, type Command } from '../commands';
import { Dialog } from './Dialog';
import { Icon } from './Icon';

const Assistants = lazy(() => import('../panels/Assistants'));
const Inbox = lazy(() => import('../panels/Inbox'));
const Compare = lazy(() => import('../panels/Compare'));

export function Dialogs(): ReactElement {
  useLanguage();
  const { dialog, askedKey, deleting } = useExternal(app);
  const close = (): void => show(null);
  return (
    <>
      {askedKey && <KeyDialog asked={askedKey} />}
      {deleting && <DeleteDialog {...deleting} />}
      {dialog === 'keys' && <Dialog title={t('keys.title')} onClose={close}><Keys /></Dialog>}
      {dialog === 'palette' && <Palette onClose={close} />}
      <Suspense fallback={null}>
        {dialog === 'assistants' && <Dialog title={t('assistants.title')} onClose={close} className="large"><Assistants /></Dialog>}
        {dialog === 'inbox' && <Dialog title={t('inbox.title')} onClose={close} className="medium"><Inbox onClose={close} /></Dialog>}
        {dialog === 'compare' && <Dialog title={t('compare.title')} onClose={close} className="large"><Compare /></Dialog>}
      </Suspense>
    </>
  );
}

function KeyDialog({ asked }: { asked: NonNullable<AppState['askedKey']> }): ReactElement {
  const [key, setKey] = useState('');
  const answer = (given: string | null): void => { app.change({ askedKey: null }); asked.answer(given); };
  return (
    <Dialog title={t('key.title')} onClose={() => answer(null)} plain>
      <form onSubmit={(event) => { event.preventDefault(); if (key.trim()) answer(key.trim()); }}>
        <p>{t('key.text')}</p>
        {asked.wrong && <p className="wrong" role="alert">{t('key.wrong')}</p>}
        <label>{t('key.label')}<input type="password" autoComplete="off" value={key} onChange={(event) => setKey(event.target.value)} autoFocus /></label>
        <div className="dialog-actions"><button type="button" className="button" onClick={() => answer(null)}>{t('page.cancel')}</button><button type="submit" className="button primary">{t('key.send')}</button></div>
      </form>
    </Dialog>
  );
}

function DeleteDialog({ id, title }: { id: string; title: string }): ReactElement {
  const close = (): void => app.change({ deleting: null });
  const yes = (): void => {
    close();
    remove(id).then(() => { if (session.session.get().threadId === id) session.newChat(); }, complain);
  };
  return (
    <Dialog title={t('sessions.delete.title')} onClose={close} plain>
      <p>{t('sessions.delete.text', { title })}</p>
      <div className="dialog-actions"><button type="button" className="button" onClick={close} autoFocus>{t('page.cancel')}</button><button type="button" className="button danger" onClick={yes}>{t('sessions.delete.yes')}</button></div>
    </Dialog>
  );
}

const SHORTCUTS: [string, Key][] = [
  ['?', 'keys.list'], ['Ctrl K', 'keys.palette'], ['Ctrl Shift O', 'keys.new'], ['/', 'keys.composer'], ['Esc', 'keys.escape'], ['Enter', 'keys.send'], ['Shift Enter', 'keys.line'],
  ['g', 'keys.graph'], ['t', 'keys.timeline'], ['e', 'keys.events'], ['← →', 'keys.scrub'], ['Home End', 'keys.ends'], ['Ctrl .', 'keys.stop'],
];

function Keys(): ReactElement {
  return <dl className="keys-list">{SHORTCUTS.map(([keys, text]) => <div key={text}><dt>{keys.split(' ').map((key) => <kbd key={key}>{key}</kbd>)}</dt><dd>{t(text)}</dd></div>)}</dl>;
}

const AT_MOST = 12;

function Palette({ onClose }: { onClose: () => void }): ReactElement {
  const { rows } = useExternal(sessions);
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const found = useMemo(() => {
    const wanted = text.trim().toLocaleLowerCase();
    const opens: Command[] = rows.map(({ id, title }) => ({ id, icon: 'chat', name: title || t('sessions.untitled'), run: () => { location.hash = `#s=${id}`; } }));
    return [...commands(), ...opens].filter(({ name }) => name.toLocaleLowerCase().includes(wanted)).slice(0, AT_MOST);
  }, [text, rows]);
  useEffect(() => setAt(0), [text]);
  useEffect(() => { list.current?.children[at]?.scrollIntoView({ block: 'nearest' }); }, [at]);
  const run = (command: Command | undefined): void => { if (!command) return; onClose(); command.run(); };
  return (
    <Dialog title={t('palette.title')} onClose={onClose} className="palette" plain>
      <input role="combobox" aria-expanded="true" aria-controls="palette-list" aria-activedescendant={found[at] ? `palette-${at}` : undefined} aria-label={t('palette.title')} placeholder={t('palette.hint')} value={text} autoFocus
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.nativeEvent.isComposing) return;
          if (event.key === 'ArrowDown') setAt(Math.min(found.length - 1, at + 1));
          else if (event.key === 'ArrowUp') setAt(Math.max(0, at - 1));
          else if (event.key === 'Enter') run(found[at]);
          else return;
          event.preventDefault();
        }} />
      <ul id="palette-list" role="listbox" aria-label={t('palette.title')} ref={list}>
        {found.map((command, n) => (
          // The combobox has the keyboard; this is for the pointer.
          // oxlint-disable-next-line jsx-a11y/click-events-have-key-events, jsx-a11y/interactive-supports-focus
          <li key={command.id} id={`palette-${n}`} role="option" aria-selected={n === at} onClick={() => run(command)} onMouseMove={() => setAt(n)}><Icon name={command.icon} />{command.name}</li>
        ))}
      </ul>
      {found.length === 0 && <p className="muted">{t('palette.none')}</p>}
    </Dialog>
  );
}
