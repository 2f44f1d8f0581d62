/** What the page shows beside the conversation, and how parts of it ask for one another. */
import { readPlace, writePlace, type Panel } from './address';
import { ApiError } from './api/http';
import { External } from './model/external';
import { has, t } from './i18n';
import * as session from './session';

export type DialogName = 'keys' | 'palette' | 'assistants' | 'inbox' | 'compare' | null;
export interface Toast { text: string; bad: boolean; n: number }

/** What is shown of a checkpoint. */
export type View = 'changes' | 'messages' | 'state';

export interface App {
  panel: Panel | null;
  checkpoint: string | null;
  sidebar: boolean;
  dialog: DialogName;
  toast: Toast | null;
  said: string;
  askedKey: { wrong: boolean; answer: (key: string | null) => void } | null;
  renaming: string | null;
  deleting: { id: string; title: string } | null;
  node: string | null;
  compare: [string, string] | null;
  view: View;
}

const wide = matchMedia('(min-width: 1200px)').matches;
const PANEL = 'threadline.panel';
const place = readPlace();
export const app = new External<App>({
  panel: place.panel ?? (wide && localStorage.getItem(PANEL) !== 'none' ? 'graph' : null), checkpoint: place.checkpoint, sidebar: false,
  dialog: null, toast: null, said: '', askedKey: null, renaming: null, deleting: null, node: null, compare: null, view: 'messages',
});

export const show = (dialog: DialogName): void => app.change({ dialog });

export function openPanel(panel: Panel | null, checkpoint?: string): void {
  localStorage.setItem(PANEL, panel ?? 'none');
  app.change({ panel, ...(checkpoint ? { checkpoint } : {}) });
  if (panel === null) leavePast();
  keepPlace();
}

export function selectCheckpoint(checkpoint: string | null): void {
  app.change({ checkpoint });
  keepPlace();
}

let started = false;

/** From now on the address follows what is shown; before, it says what to show. */
export const start = (): void => { started = true; };

export function keepPlace(): void {
  if (!started) return;
  const { panel, checkpoint } = app.get();
  const { threadId, leaf, head } = session.session.get();
  writePlace({ session: threadId, branch: threadId && leaf !== head ? leaf : null, checkpoint: threadId ? checkpoint : null, panel: threadId ? panel : null });
}

let toasts = 0;
export function tell(text: string, { bad = false } = {}): void {
  app.change({ toast: { text, bad, n: (toasts += 1) } });
}

/** Say aloud to a screen reader. */
export const announce = (said: string): void => app.change({ said });

/** What a refusal means to a person. */
export function words(error: unknown): string {
  if (!(error instanceof ApiError)) return `${t('error.internal')} ${error instanceof Error ? error.message : ''}`.trim();
  const known = `error.${error.kind}`;
  const said = has(known) ? t(known) : t('error.internal');
  const detail = error.message && !has(known) ? ` ${error.message}` : '';
  return `${said}${detail}${error.wait ? ` ${t('error.wait', { n: error.wait })}` : ''}`;
}

export const complain = (error: unknown): void => tell(words(error), { bad: true });

export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    tell(t('page.copied'));
  } catch {
    tell(t('page.copyfailed'), { bad: true });
  }
}

export function save(name: string, text: string, type: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Come back from a look at the past. */
export function leavePast(): void {
  void session.lookAt(null);
  selectCheckpoint(null);
}
