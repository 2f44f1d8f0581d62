/** The whole page: the list of conversations, the conversation, and the panel beside it. */
import { lazy, Suspense, useEffect, useRef, useState, type ReactElement } from 'react';
import { readPlace, type Panel } from '../address';
import { apiHost, apiUrl, keysFrom } from '../api/http';
import { announce, app, complain, copy, keepPlace, openPanel, show, start } from '../app';
import { exportAs } from '../commands';
import { t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import { connect, server } from '../server';
import * as session from '../session';
import { readSessions, sessions } from '../sessions';
import { Chat } from './Chat';
import { Dialogs } from './Dialogs';
import { Icon, IconButton, type IconName } from './Icon';
import { Sidebar } from './Sidebar';

const GraphPanel = lazy(() => import('../panels/Graph'));
const Timeline = lazy(() => import('../panels/Timeline'));
const Events = lazy(() => import('../panels/Events'));

const PANELS: [Panel, IconName][] = [['graph', 'graph'], ['timeline', 'history'], ['events', 'events']];
const ALLOWED = 'threadline.server';

/** A link may name any server, so a person is asked before the page speaks to one that is not on this machine. */
const trusted = (): boolean => apiUrl === '' || /^(localhost|127(\.\d+){3}|\[::1\])(:|$)/.test(apiHost) || sessionStorage.getItem(ALLOWED) === apiUrl;

export function App(): ReactElement {
  useLanguage();
  const [allowed, setAllowed] = useState(trusted);
  if (allowed) return <Page />;
  return (
    <main className="ask-server">
      <h1>{t('away.ask', { host: apiHost })}</h1>
      <p>{t('away.ask.text')}</p>
      <div className="row"><button type="button" className="button primary" onClick={() => { sessionStorage.setItem(ALLOWED, apiUrl); setAllowed(true); }}>{t('away.ask.yes')}</button><a className="button" href={location.pathname}>{t('page.cancel')}</a></div>
    </main>
  );
}

function Page(): ReactElement {
  useLanguage();
  const { panel, sidebar, toast, said } = useExternal(app);
  const s = useExternal(session.session);
  const { rows } = useExternal(sessions);
  const { status } = useExternal(server);
  useStart();
  useKeys();

  const title = s.threadId === null ? t('sessions.new') : rows.find(({ id }) => id === s.threadId)?.title || s.title || t('sessions.untitled');
  useEffect(() => { document.title = s.threadId === null ? 'Threadline' : `${title} · Threadline`; }, [title, s.threadId]);
  useEffect(() => { if (!s.opening) keepPlace(); }, [s.threadId, s.leaf, s.head, s.opening]);
  useEffect(() => {
    if (!toast) return undefined;
    const timer = setTimeout(() => app.change({ toast: null }), toast.bad ? 8000 : 2500);
    return () => clearTimeout(timer);
  }, [toast]);

  const openSession = (id: string): void => { app.change({ sidebar: false, checkpoint: null }); void session.open(id); };
  const begin = (): void => {
    app.change({ sidebar: false, checkpoint: null });
    session.newChat();
    if (matchMedia('(hover: hover)').matches) document.getElementById('composer')?.focus(); // on a phone this would open the keyboard
  };
  return (
    <div className={`page${panel ? ' with-panel' : ''}`}>
      <a className="skip" href="#composer" onClick={(event) => { event.preventDefault(); document.getElementById('composer')?.focus(); }}>{t('page.skip')}</a>
      <Sidebar onOpen={openSession} onNew={begin} />
      {sidebar && <button type="button" className="scrim" aria-label={t('sessions.close')} onClick={() => app.change({ sidebar: false })} />}
      <main className="main" id="main">
        <header className="topbar">
          <IconButton icon="menu" id="open-sidebar" className="only-narrow" label={t('sessions.open')} onClick={() => app.change({ sidebar: true })} expanded={sidebar} controls="sidebar" />
          <h1 className="title" id="title">{title}</h1>
          {status === 'away' && <span className="tag bad">{t('away.short')}</span>}
          {s.threadId !== null && <Menu />}
          <div className="tabs" role="group" aria-label={t('panel.title')}>
            {PANELS.map(([name, icon]) => (
              <button key={name} type="button" id={`toggle-${name}`} className="button quiet tab" aria-pressed={panel === name} aria-label={t(`panel.${name}`)} title={t(`panel.${name}`)} onClick={() => openPanel(panel === name ? null : name)}>
                <Icon name={icon} /><span className="not-phone tab-name">{t(`panel.${name}`)}</span>
              </button>
            ))}
          </div>
        </header>
        <Chat />
      </main>
      {panel && (
        <aside className="panel" id="panel" data-panel={panel} aria-label={t(`panel.${panel}`)}>
          <header className="panel-head"><h2>{t(`panel.${panel}`)}</h2><IconButton icon="close" id="close-panel" label={t('panel.close')} onClick={() => openPanel(null)} /></header>
          <Suspense fallback={<p className="muted padded">{t('chat.loading')}</p>}>
            {panel === 'graph' && <GraphPanel />}
            {panel === 'timeline' && <Timeline />}
            {panel === 'events' && <Events />}
          </Suspense>
        </aside>
      )}
      <div className="hidden" id="announcer" aria-live="polite">{said}</div>
      {toast && <div key={toast.n} className={`toast${toast.bad ? ' bad' : ''}`} id="toast" role={toast.bad ? 'alert' : 'status'}>{toast.text}<IconButton icon="close" label={t('page.close')} onClick={() => app.change({ toast: null })} /></div>}
      <Dialogs />
    </div>
  );
}

function Menu(): ReactElement {
  const box = useRef<HTMLDetailsElement>(null);
  const { threadId, title } = useExternal(session.session);
  const run = (work: () => void) => (): void => { if (box.current) box.current.open = false; work(); };
  return (
    // Escape closes it, wherever in it the focus is.
    // oxlint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <details className="menu" ref={box} onKeyDown={(event) => { if (event.key === 'Escape' && box.current?.open) { box.current.open = false; event.stopPropagation(); } }}>
      <summary className="icon-button" aria-label={t('page.more')} title={t('page.more')} id="more"><Icon name="more" /></summary>
      <div className="menu-list">
        <button type="button" onClick={run(() => exportAs('md'))}><Icon name="download" />{t('export.md')}</button>
        <button type="button" onClick={run(() => exportAs('json'))}><Icon name="download" />{t('export.json')}</button>
        <button type="button" onClick={run(() => void copy(location.href))}><Icon name="copy" />{t('page.copylink')}</button>
        <button type="button" onClick={run(() => show('compare'))}><Icon name="compare" />{t('compare.title')}</button>
        <button type="button" onClick={run(() => app.change({ deleting: { id: threadId ?? '', title: title ?? '' } }))}><Icon name="trash" />{t('sessions.delete.this')}</button>
      </div>
    </details>
  );
}

function useStart(): void {
  useEffect(() => {
    keysFrom((wrong) => new Promise((answer) => app.change({ askedKey: { wrong, answer } })));
    Object.assign(session.heard, {
      problem: complain,
      changed: () => void readSessions(),
      started: () => { if (app.get().checkpoint) app.change({ checkpoint: null }); },
      ended: (run: { status: string }) => announce(run.status === 'failed' ? t('error.title') : t('chat.answered', { text: session.lastText(session.session.get()).slice(0, 500) })),
    });
    const goTo = (event?: Event): void => {
      const place = readPlace();
      app.change({ checkpoint: place.checkpoint, ...(place.panel ? { panel: place.panel } : {}) });
      const { threadId } = session.session.get();
      if (place.session && place.session !== threadId) void session.open(place.session, place.branch);
      else if (!place.session && threadId && event) session.newChat(); // what was begun before the service answered stays
    };
    void connect().then(() => { if (server.get().status === 'ready') void readSessions(); goTo(); start(); keepPlace(); });
    addEventListener('popstate', goTo);
    addEventListener('hashchange', goTo);
    const back = (): void => { if (server.get().status === 'away') void connect().then(readSessions); };
    addEventListener('online', back);
    return () => { removeEventListener('popstate', goTo); removeEventListener('hashchange', goTo); removeEventListener('online', back); };
  }, []);
}

const typing = (target: EventTarget | null): boolean => target instanceof HTMLElement && !!target.closest('input, textarea, select, [contenteditable]');

function useKeys(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.isComposing) return;
      const command = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      const { dialog, panel, sidebar } = app.get();
      if (command && key === 'k') show(dialog === 'palette' ? null : 'palette');
      else if (document.querySelector('dialog[open]')) return;
      else if (command && event.shiftKey && key === 'o') session.newChat();
      else if (command && key === '.') void session.stop();
      else if (key === 'escape' && sidebar) { app.change({ sidebar: false }); document.getElementById('open-sidebar')?.focus(); } else if (key === 'escape' && panel && !typing(event.target)) openPanel(null);
      else if (command || event.altKey || typing(event.target)) return;
      else if (event.key === '?') show('keys');
      else if (key === '/') document.getElementById('composer')?.focus();
      else if (key === 'g') openPanel(panel === 'graph' ? null : 'graph');
      else if (key === 't') openPanel(panel === 'timeline' ? null : 'timeline');
      else if (key === 'e') openPanel(panel === 'events' ? null : 'events');
      else return;
      event.preventDefault();
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  }, []);
}
