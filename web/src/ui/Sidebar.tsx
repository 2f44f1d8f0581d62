/** The list of conversations, and the way to everything else. */
import { useEffect, useState, type ReactElement } from 'react';
import { apiHost, apiUrl } from '../api/http';
import { app, complain, show } from '../app';
import { ago, chooseLanguage, language, number, t, useLanguage, type Language } from '../i18n';
import { useExternal } from '../model/external';
import { chooseTheme, prefs, type Theme } from '../prefs';
import { chooseAssistant, server } from '../server';
import * as session from '../session';
import { readAll, readMore, rename, sessions, type Row } from '../sessions';
import { Icon, IconButton, type IconName } from './Icon';

const THEMES: [Theme, IconName][] = [['system', 'screen'], ['light', 'sun'], ['dark', 'moon']];
const LANGUAGES: [Language, string][] = [['en', 'English'], ['ko', '한국어']];

export function Sidebar({ onOpen, onNew }: { onOpen: (id: string) => void; onNew: () => void }): ReactElement {
  useLanguage();
  const { rows, next, loading, failed, waiting } = useExternal(sessions);
  const { threadId } = useExternal(session.session);
  const { theme } = useExternal(prefs);
  const { own, assistants, assistantId, info } = useExternal(server);
  const { sidebar } = useExternal(app);
  const [search, setSearch] = useState('');
  useEffect(() => { if (search.trim()) void readAll(); }, [search]);
  const wanted = search.trim().toLocaleLowerCase();
  const found = wanted ? rows.filter(({ title, id }) => title.toLocaleLowerCase().includes(wanted) || id.startsWith(wanted)) : rows;
  return (
    <nav className={`sidebar${sidebar ? ' open' : ''}`} id="sidebar" aria-label={t('sessions.title')}>
      <div className="brand">
        <svg className="logo" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" /><path d="M7 21c5 0 4-10 9-10s4 10 9 10" /><circle cx="7" cy="21" r="2.6" /><circle cx="16" cy="11" r="2.6" /><circle cx="25" cy="21" r="2.6" /></svg>
        <span className="wordmark">Threadline</span>
        <IconButton icon="close" id="close-sidebar" className="only-narrow" label={t('sessions.close')} onClick={() => app.change({ sidebar: false })} />
      </div>
      {apiUrl && <p className="elsewhere" role="note"><Icon name="globe" />{t('away.connected', { host: apiHost })}</p>}
      <button className="button primary wide" id="new-chat" type="button" onClick={onNew}><Icon name="plus" />{t('sessions.new')}</button>
      {assistants.length > 1 && (
        <label className="assistant-pick"><span className="hidden">{t('assistants.use')}</span>
          <select value={assistantId} onChange={(event) => chooseAssistant(event.target.value)}>
            {assistants.map(({ assistant_id: id, name, graph_id: graph }) => <option key={id} value={id}>{name === graph || !name ? graph : `${name} (${graph})`}</option>)}
          </select>
        </label>
      )}
      <div className="search-box"><Icon name="search" /><input type="search" id="search" value={search} onChange={(event) => setSearch(event.target.value)} placeholder={t('sessions.search')} aria-label={t('sessions.search')} /></div>
      <ul className="sessions" id="sessions">{found.map((row) => <SessionRow key={row.id} row={row} current={row.id === threadId} onOpen={onOpen} />)}</ul>
      {!loading && found.length === 0 && <p className="muted sessions-note">{t(failed ? 'sessions.failed' : wanted ? 'sessions.notfound' : 'sessions.none')}</p>}
      {next !== null && !wanted && <button type="button" className="button quiet wide" id="more-sessions" onClick={() => void readMore()}>{t('sessions.more')}</button>}
      <div className="sidebar-foot">
        <div className="foot-row">
          <button type="button" className="button quiet" id="open-inbox" onClick={() => show('inbox')}><Icon name="inbox" />{t('inbox.title')}{waiting > 0 && <span className="badge">{number(waiting)}</span>}</button>
          <button type="button" className="button quiet" id="open-assistants" onClick={() => show('assistants')}><Icon name="settings" />{t('assistants.title')}</button>
        </div>
        <div className="foot-row">
          <div className="switch" role="group" aria-label={t('page.language')}>
            {LANGUAGES.map(([code, name]) => <button key={code} type="button" lang={code} data-language={code} aria-pressed={language.get() === code} onClick={() => chooseLanguage(code)}>{name}</button>)}
          </div>
          <div className="switch" role="group" aria-label={t('page.theme')}>
            {THEMES.map(([name, icon]) => <button key={name} type="button" data-theme-choice={name} aria-pressed={theme === name} aria-label={t(`page.theme.${name}`)} title={t(`page.theme.${name}`)} onClick={() => chooseTheme(name)}><Icon name={icon} /></button>)}
          </div>
        </div>
        <div className="foot-row">
          <button type="button" className="foot-link" onClick={() => show('keys')}><Icon name="keyboard" />{t('keys.title')}</button>
          {own && <a className="foot-link" href={`${apiUrl}/docs`}>{t('page.docs')}</a>}
        </div>
        {info?.model?.provider === 'offline' && <p className="muted offline">{t('page.offline')}</p>}
      </div>
    </nav>
  );
}

function SessionRow({ row, current, onOpen }: { row: Row; current: boolean; onOpen: (id: string) => void }): ReactElement {
  const { renaming } = useExternal(app);
  const title = row.title || t('sessions.untitled');
  const facts = [row.status === 'busy' ? t('sessions.busy') : row.status === 'interrupted' ? t('sessions.waiting') : row.status === 'error' ? t('sessions.error') : ago(row.updated), row.turns === null ? '' : t('sessions.turns', { n: row.turns })];
  if (renaming === row.id) return <li><Rename row={row} /></li>;
  return (
    <li data-status={row.status}>
      <a href={`#s=${encodeURIComponent(row.id)}`} aria-current={current ? 'page' : undefined} onClick={(event) => { if (event.metaKey || event.ctrlKey) return; event.preventDefault(); onOpen(row.id); }}>
        <span className={`lamp ${row.status}${row.live ? ' live' : ''}`} title={row.live === null ? undefined : t(row.live ? 'sessions.live' : 'sessions.kept')} />
        <span className="session-title">{title}</span><span className="session-facts muted">{facts.filter(Boolean).join(' · ')}</span>
      </a>
      <span className="session-actions">
        <IconButton icon="edit" className="rename" label={t('sessions.rename', { title })} onClick={() => app.change({ renaming: row.id })} />
        <IconButton icon="trash" className="delete" label={t('sessions.delete', { title })} onClick={() => app.change({ deleting: { id: row.id, title } })} />
      </span>
    </li>
  );
}

function Rename({ row }: { row: Row }): ReactElement {
  const [title, setTitle] = useState(row.title);
  const end = (): void => app.change({ renaming: null });
  const send = (): void => {
    const given = title.trim();
    end();
    if (given && given !== row.title) rename(row.id, given.slice(0, 200)).catch(complain);
  };
  return (
    <form className="rename-form" onSubmit={(event) => { event.preventDefault(); send(); }}>
      <input aria-label={t('sessions.rename', { title: row.title })} value={title} autoFocus onFocus={(event) => event.target.select()} onChange={(event) => setTitle(event.target.value)}
        onBlur={send} onKeyDown={(event) => { if (event.key === 'Escape') { event.stopPropagation(); end(); } }} />
    </form>
  );
}
