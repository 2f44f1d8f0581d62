/** Everything that can be done from the keyboard, by name: for the palette. */
import { app, copy, openPanel, save, show } from './app';
import { language, chooseLanguage, t } from './i18n';
import { asJson, asMarkdown, fileName } from './model/export';
import { chooseSize, chooseTheme, prefs } from './prefs';
import * as session from './session';
import { isBusy } from './session';
import type { IconName } from './ui/Icon';

export interface Command { id: string; icon: IconName; name: string; run: () => void }

export function exportAs(kind: 'md' | 'json'): void {
  const s = session.session.get();
  if (kind === 'md') save(fileName(s, 'md'), asMarkdown(s), 'text/markdown');
  else save(fileName(s, 'json'), asJson(s), 'application/json');
}

export function commands(): Command[] {
  const s = session.session.get();
  const here = s.threadId !== null;
  const list: (Command | false)[] = [
    { id: 'new', icon: 'plus', name: t('sessions.new'), run: session.newChat },
    isBusy(s) && { id: 'stop', icon: 'stop', name: t('chat.stop'), run: () => void session.stop() },
    here && { id: 'graph', icon: 'graph', name: t('panel.graph'), run: () => openPanel('graph') },
    here && { id: 'timeline', icon: 'history', name: t('panel.timeline'), run: () => openPanel('timeline') },
    here && { id: 'events', icon: 'events', name: t('panel.events'), run: () => openPanel('events') },
    { id: 'inbox', icon: 'inbox', name: t('inbox.title'), run: () => show('inbox') },
    { id: 'assistants', icon: 'settings', name: t('assistants.title'), run: () => show('assistants') },
    here && { id: 'md', icon: 'download', name: t('export.md'), run: () => exportAs('md') },
    here && { id: 'json', icon: 'download', name: t('export.json'), run: () => exportAs('json') },
    here && { id: 'link', icon: 'copy', name: t('page.copylink'), run: () => void copy(location.href) },
    here && { id: 'rename', icon: 'edit', name: t('sessions.rename.this'), run: () => app.change({ renaming: s.threadId, sidebar: true }) },
    here && { id: 'delete', icon: 'trash', name: t('sessions.delete.this'), run: () => app.change({ deleting: { id: s.threadId ?? '', title: s.title ?? '' } }) },
    here && { id: 'compare', icon: 'compare', name: t('compare.title'), run: () => show('compare') },
    { id: 'light', icon: 'sun', name: t('page.theme.light'), run: () => chooseTheme('light') },
    { id: 'dark', icon: 'moon', name: t('page.theme.dark'), run: () => chooseTheme('dark') },
    { id: 'system', icon: 'screen', name: t('page.theme.system'), run: () => chooseTheme('system') },
    { id: 'larger', icon: 'plus', name: t('page.larger'), run: () => chooseSize(prefs.get().size + 1) },
    { id: 'smaller', icon: 'down', name: t('page.smaller'), run: () => chooseSize(prefs.get().size - 1) },
    { id: 'language', icon: 'globe', name: language.get() === 'ko' ? 'English' : '한국어', run: () => chooseLanguage(language.get() === 'ko' ? 'en' : 'ko') },
    { id: 'keys', icon: 'keyboard', name: t('keys.title'), run: () => show('keys') },
  ];
  return list.filter((one) => one !== false);
}
