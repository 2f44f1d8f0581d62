/** What a reader chose for this browser: colours, size of type, which panel is open. */
import { External } from './model/external';

export type Theme = 'system' | 'light' | 'dark';
export interface Prefs { theme: Theme; size: number }

const THEME = 'threadline.theme';
const SIZE = 'threadline.size';

const kept = localStorage.getItem(THEME);
export const prefs = new External<Prefs>({
  theme: kept === 'light' || kept === 'dark' ? kept : 'system',
  size: Number(localStorage.getItem(SIZE)) || 15,
});

export function applyPrefs(): void {
  const { theme, size } = prefs.get();
  const root = document.documentElement;
  if (theme === 'system') delete root.dataset.theme;
  else root.dataset.theme = theme;
  root.style.fontSize = `${size}px`;
}

export function chooseTheme(theme: Theme): void {
  if (theme === 'system') localStorage.removeItem(THEME);
  else localStorage.setItem(THEME, theme);
  prefs.change({ theme });
  applyPrefs();
}

export function chooseSize(size: number): void {
  const bounded = Math.min(20, Math.max(12, size));
  localStorage.setItem(SIZE, String(bounded));
  prefs.change({ size: bounded });
  applyPrefs();
}
