/** What the graph does, told in cards: its nodes, what it understood, the tools it calls. */
import { useState, type ReactElement } from 'react';
import { app, openPanel } from '../app';
import { duration, languageName, named, nodeName, number, t, toolName, useLanguage } from '../i18n';
import type { Intent, NodeRun, ToolRun } from '../model/run';
import { Icon, type IconName } from './Icon';
import { JsonTree } from './JsonTree';

export interface Chip { node: string; path: string; state: NodeRun['state']; ms: number | null; error?: string | null; firstToken?: number | null; rate?: number | null }

export function NodeChips({ chips }: { chips: Chip[] }): ReactElement | null {
  useLanguage();
  if (chips.length === 0) return null;
  return (
    <ol className="chips" aria-label={t('graph.title')}>
      {chips.map((chip, n) => (
        <li key={n}>
          <button type="button" className="chip" data-node={chip.node} data-state={chip.state} title={title(chip)}
            onClick={() => { openPanel('graph'); app.change({ node: chip.path }); }}>
            <span className="dot" aria-hidden="true" />{chip.path.includes(':') ? chip.path.split(':').map(nodeName).join(' › ') : nodeName(chip.node)}
            <span className="hidden"> {t(`state.${chip.state}`)}</span>
            {chip.ms !== null && <span className="chip-ms">{duration(chip.ms)}</span>}
          </button>
        </li>
      ))}
    </ol>
  );
}

function title({ state, error, firstToken, rate }: Chip): string {
  return [t(`state.${state}`), firstToken ? t('turn.firsttoken', { time: duration(firstToken) }) : '', rate ? t('turn.rate', { n: Math.round(rate) }) : '', error ?? ''].filter(Boolean).join(' · ');
}

export function IntentCard({ intent }: { intent: Intent }): ReactElement {
  useLanguage();
  const percent = Math.round((Number.isFinite(intent.confidence) ? intent.confidence : 0) * 100);
  return (
    <div className="intent">
      <Icon name="spark" /><span className="muted">{t('intent.title')}</span>
      <strong>{named(`intent.kind.${intent.kind}`, intent.kind)}</strong>
      <meter min={0} max={100} value={percent} aria-label={t('intent.confidence')} />
      <span className="muted">{t('intent.confidence.value', { n: percent })}</span>
      <span className="muted">{languageName(intent.language)}</span>
    </div>
  );
}

const TOOL_ICONS: Record<string, IconName> = { calculator: 'calculator', weather: 'weather', search: 'search' };

export function ToolCard({ tool }: { tool: ToolRun }): ReactElement {
  useLanguage();
  const [open, setOpen] = useState(false);
  return (
    <section className="tool" data-tool={tool.name} data-state={tool.state} aria-label={toolName(tool.name)}>
      <header className="tool-head">
        <span className="tool-icon"><Icon name={TOOL_ICONS[tool.name] ?? 'tool'} /></span>
        <strong>{toolName(tool.name)}</strong>
        <code className="tool-brief">{brief(tool.args)}</code>
        <span className="tool-end">
          {tool.cached && <span className="tag">{t('tool.cached')}</span>}
          {tool.ms !== null && <span className="muted">{duration(tool.ms)}</span>}
          <span className="tool-state">{t(tool.state === 'active' ? 'tool.running' : `tool.${tool.state}`)}</span>
        </span>
      </header>
      {tool.error !== null && <p className="tool-error">{tool.error}</p>}
      {tool.error === null && tool.result !== null && <div className="tool-result"><Result tool={tool} /></div>}
      <details className="tool-more" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>{t('tool.details')}</summary>
        {open && (
          <div className="tool-inside">
            <h5>{t('tool.args')}</h5><JsonTree value={tool.args} open />
            {tool.result !== null && <><h5>{t('tool.result')}</h5><JsonTree value={tool.result} open /></>}
          </div>
        )}
      </details>
    </section>
  );
}

/** Arguments in a few words: the values alone. */
function brief(args: unknown): string {
  if (args === null || typeof args !== 'object') return String(args ?? '');
  const text = Object.values(args).map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(', ');
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

type Fields = Record<string, unknown>;
const isText = (value: unknown): value is string => typeof value === 'string';

/** What the built-in tools found, as a person would say it; of any other tool, the beginning of what it gave. */
function Result({ tool: { name, result } }: { tool: ToolRun }): ReactElement {
  const found = result as Fields;
  if (name === 'calculator' && isText(found.result)) {
    return <p>{isText(found.expression) && `${found.expression} = `}<strong>{found.result}{isText(found.unit) && ` ${found.unit}`}</strong></p>;
  }
  if (name === 'weather' && typeof found.temperature_c === 'number') return <Weather found={found} />;
  if (name === 'search' && Array.isArray(found.results)) return <Hits results={found.results as Fields[]} provider={isText(found.provider) ? found.provider : ''} />;
  const text = isText(result) ? result : JSON.stringify(result);
  return <p className="plain">{text.length > 400 ? `${text.slice(0, 400)}…` : text}</p>;
}

function Weather({ found }: { found: Fields }): ReactElement {
  const is = (key: string): number | null => (typeof found[key] === 'number' ? found[key] : null);
  const [feels, humidity, wind] = [is('feels_like_c'), is('humidity_percent'), is('wind_kmh')];
  const more = [feels === null ? '' : t('tool.feels', { t: feels }), humidity === null ? '' : t('tool.humidity', { n: humidity }), wind === null ? '' : t('tool.wind', { n: wind })];
  const days = Array.isArray(found.days) ? found.days as Fields[] : [];
  return (
    <>
      <p>{[found.place, found.country].filter(isText).join(', ')} · <strong>{number(is('temperature_c') ?? 0)} °C</strong>{isText(found.condition) && ` · ${found.condition}`}</p>
      <p className="muted">{more.filter(Boolean).join(' · ')}</p>
      {days.length > 0 && (
        <ul className="days">
          {days.map((day, n) => <li key={n}><span className="muted">{String(day.date ?? '')}</span><span>{number(Number(day.min_c))} – {number(Number(day.max_c))} °C</span><span className="muted">{String(day.condition ?? '')}</span></li>)}
        </ul>
      )}
    </>
  );
}

function Hits({ results, provider }: { results: Fields[]; provider: string }): ReactElement {
  return (
    <>
      <p className="muted">{[t('tool.results', { n: results.length }), provider].filter(Boolean).join(' · ')}</p>
      <ol className="hits">
        {results.slice(0, 6).map((hit, n) => {
          const [url, heading] = [isText(hit.url) ? hit.url : '', isText(hit.title) ? hit.title : ''];
          return <li key={n}>{/^https?:\/\//i.test(url) ? <a href={url} target="_blank" rel="noopener noreferrer">{heading || url}</a> : <span>{heading}</span>}{isText(hit.snippet) && <p className="muted">{hit.snippet}</p>}</li>;
        })}
      </ol>
    </>
  );
}
