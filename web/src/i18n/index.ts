/** The page's words in the reader's language, and numbers and times as that language writes them. */
import { External, useExternal } from '../model/external';
import { en } from './en';
import { ko } from './ko';

export type Key = keyof typeof en;
export type Text = string | { one?: string; other: string };
export type Language = 'en' | 'ko';
export const tables: Record<Language, Record<Key, Text>> = { en, ko };

const KEPT = 'threadline.language';

function preferred(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === 'en' || kept === 'ko') return kept;
  return navigator.language.toLowerCase().startsWith('ko') ? 'ko' : 'en';
}

export const language = new External<Language>(preferred());
document.documentElement.lang = language.get();
/** Components that call this are drawn anew when the language changes. */
export const useLanguage = (): Language => useExternal(language);

export function chooseLanguage(chosen: Language): void {
  localStorage.setItem(KEPT, chosen);
  document.documentElement.lang = chosen;
  language.set(chosen);
}

export const has = (key: string): key is Key => Object.hasOwn(en, key);

/** The text of a key; `{name}` is filled from `params`, and `n` picks the plural form. */
export function t(key: Key, params: Record<string, string | number> = {}): string {
  const entry: Text = tables[language.get()][key];
  const form = typeof entry === 'string' ? entry : entry[new Intl.PluralRules(language.get()).select(Number(params.n)) as 'one' | 'other'] ?? entry.other;
  return form.replace(/\{(\w+)\}/g, (hole, name: string) => {
    const value = params[name];
    return value === undefined ? hole : typeof value === 'number' ? number(value) : value;
  });
}

/** The text of a key that data names; `fallback` where the page knows no word for it. */
export const named = (key: string, fallback: string): string => (has(key) ? t(key) : fallback);
export const nodeName = (node: string): string => named(`node.${node}`, node.replace(/^__(\w+)__$/, '$1'));
export const toolName = (tool: string): string => named(`tool.${tool}`, tool);

export const number = (value: number): string => new Intl.NumberFormat(language.get(), { maximumFractionDigits: 2 }).format(value);

/** US dollars; what is less than a cent keeps its digits. */
export const money = (value: number): string =>
  new Intl.NumberFormat(language.get(), { style: 'currency', currency: 'USD', maximumSignificantDigits: value >= 0.01 || value === 0 ? 3 : 2 }).format(value);

/** `38 ms`, `1.2 s`, `2 min 5 s`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${number(Math.round(ms / 100) / 10)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [['year', 31_536_000], ['month', 2_592_000], ['day', 86_400], ['hour', 3600], ['minute', 60]];

/** A moment relative to now, such as "5 minutes ago". */
export function ago(iso: string): string {
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  if (Number.isNaN(seconds)) return '';
  const [unit, size] = STEPS.find(([, size]) => Math.abs(seconds) >= size) ?? ['second' as const, 1];
  return new Intl.RelativeTimeFormat(language.get(), { numeric: 'auto' }).format(unit === 'second' ? 0 : Math.trunc(seconds / size), unit);
}

/** A moment to the second. */
export function moment(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? '' : new Intl.DateTimeFormat(language.get(), { dateStyle: 'medium', timeStyle: 'medium' }).format(date);
}

export function languageName(code: string): string {
  try {
    return new Intl.DisplayNames([language.get()], { type: 'language' }).of(code) ?? code;
  } catch {
    return code;
  }
}
