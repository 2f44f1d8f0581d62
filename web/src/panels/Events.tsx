/** Every frame of the run as it came over the wire, to be filtered, opened and asked for again by curl. */
import { useMemo, useState, type ReactElement } from 'react';
import { MODES } from '../api/langgraph';
import { apiUrl, keptKey } from '../api/http';
import { copy } from '../app';
import { duration, t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import type { RawEvent } from '../model/run';
import * as session from '../session';
import { Icon } from '../ui/Icon';
import { JsonTree } from '../ui/JsonTree';
import { Virtual } from '../ui/Virtual';

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const NONE: RawEvent[] = [];

export default function Events(): ReactElement {
  useLanguage();
  const s = useExternal(session.session);
  const run = s.recording ? s.recording.run ?? s.recording.runs.at(-1) ?? null : s.run;
  const [filter, setFilter] = useState('');
  const [chosen, setChosen] = useState<number | null>(null);
  const events = run?.events ?? NONE;
  const shown = useMemo(() => {
    const wanted = filter.trim().toLowerCase();
    return wanted ? events.filter((one) => one.event.toLowerCase().includes(wanted) || JSON.stringify(one.data).toLowerCase().includes(wanted)) : events;
  }, [events, filter]);
  const open = shown.find(({ n }) => n === chosen) ?? null;
  if (!run || events.length === 0) return <p className="muted padded">{t('events.none')}</p>;
  const base = apiUrl || location.origin;
  // The key itself is never copied.
  const key = keptKey() ? ` -H "x-api-key: $API_KEY"` : '';
  const read = `curl -N ${quoted(`${base}/threads/${s.threadId}/runs/${run.runId}/stream?${MODES.map((mode) => `stream_mode=${mode}`).join('&')}`)} -H 'Last-Event-ID: -1'${key}`;
  const again = s.lastAsked ? `curl -N -X POST ${quoted(`${base}/threads/${s.threadId}/runs/stream`)} -H 'content-type: application/json'${key} -d ${quoted(JSON.stringify({ stream_mode: MODES, ...s.lastAsked }))}` : '';
  return (
    <div className="events-panel">
      <div className="toolbar">
        <input type="search" value={filter} onChange={(event) => setFilter(event.target.value)} placeholder={t('events.filter')} aria-label={t('events.filter')} />
        <span className="muted">{t('events.count', { n: shown.length })}</span>
      </div>
      <div className="toolbar">
        <button type="button" className="button small" id="copy-curl" onClick={() => void copy(read)}><Icon name="copy" />{t('events.curl.read')}</button>
        {again && <button type="button" className="button small" onClick={() => void copy(again)}><Icon name="copy" />{t('events.curl.run')}</button>}
        <button type="button" className="button small" onClick={() => void copy(shown.map((one) => JSON.stringify({ id: one.id, event: one.event, data: one.data })).join('\n'))}><Icon name="copy" />{t('events.copyall')}</button>
      </div>
      <Virtual items={shown} height={30} current={open ? shown.indexOf(open) : shown.length - 1} label={t('panel.events')} keyOf={({ n }) => String(n)} draw={(one) => (
        <button type="button" className="event" aria-pressed={one.n === chosen} onClick={() => setChosen(one.n === chosen ? null : one.n)}>
          <span className="event-n">{one.n}</span><span className="event-name">{one.event}</span><span className="event-brief">{brief(one)}</span><span className="event-at">+{duration(one.at - run.from)}</span>
        </button>
      )} />
      {open && (
        <section className="event-detail" aria-label={open.event}>
          <header><strong>{open.event}</strong> <span className="muted">{open.id ?? ''}</span><button type="button" className="button small quiet" onClick={() => void copy(JSON.stringify(open.data, null, 2))}><Icon name="copy" />{t('page.copy')}</button></header>
          <JsonTree value={open.data} open />
        </section>
      )}
    </div>
  );
}

function brief({ data }: RawEvent): string {
  const text = Array.isArray(data) && data[0] && typeof data[0] === 'object' ? String((data[0] as { content?: unknown }).content ?? '') : '';
  const name = (data as { name?: unknown } | null)?.name;
  return (text || (typeof name === 'string' ? name : '') || JSON.stringify(data) || '').slice(0, 120);
}
