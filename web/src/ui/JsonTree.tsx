/** JSON as a tree that is drawn only where it is opened, so that a state of many megabytes can be looked at. */
import { useState, type ReactElement } from 'react';
import { t } from '../i18n';

const AT_ONCE = 100;
const LONG = 2000;

export function JsonTree({ value, name = '', open = false, depth = 0 }: { value: unknown; name?: string; open?: boolean; depth?: number }): ReactElement {
  if (value === null || typeof value !== 'object') {
    return <div className="json-leaf">{name !== '' && <span className="json-key">{name}: </span>}<Leaf value={value} /></div>;
  }
  return <Branch value={value} name={name} open={open} depth={depth} />;
}

function Branch({ value, name, open, depth }: { value: object; name: string; open: boolean; depth: number }): ReactElement {
  const [opened, setOpened] = useState(open);
  const [shown, setShown] = useState(AT_ONCE);
  const list = Array.isArray(value);
  const keys = Object.keys(value);
  return (
    <details className="json" open={opened} onToggle={(event) => setOpened(event.currentTarget.open)}>
      <summary>
        {name !== '' && <span className="json-key">{name} </span>}
        <span className="muted">{t(list ? 'json.items' : 'json.fields', { n: keys.length })}</span>
        {!opened && <span className="json-hint muted">{hint(value)}</span>}
      </summary>
      {opened && (
        <div className="json-inside">
          {keys.slice(0, shown).map((key) => <JsonTree key={key} name={key} value={(value as Record<string, unknown>)[key]} depth={depth + 1} />)}
          {keys.length > shown && (
            <button type="button" className="button small quiet" onClick={() => setShown(shown + AT_ONCE * 5)}>{t('json.more', { n: keys.length - shown })}</button>
          )}
        </div>
      )}
    </details>
  );
}

/** A word on what is inside: a message's type and text, a thing's name. */
function hint(value: object): string {
  const { type, role, name, content, text } = value as Record<string, unknown>;
  const kind = [type ?? role, name].filter((one) => typeof one === 'string').join(' ');
  const said = typeof content === 'string' ? content : typeof text === 'string' ? text : '';
  return ` ${[kind, said.slice(0, 60)].filter(Boolean).join(': ')}`;
}

function Leaf({ value }: { value: unknown }): ReactElement {
  const [all, setAll] = useState(false);
  if (typeof value !== 'string') return <span className="json-value">{value === undefined ? '—' : JSON.stringify(value)}</span>;
  const long = value.length > LONG && !all;
  return (
    <span className="json-text">
      {JSON.stringify(long ? value.slice(0, LONG) : value)}
      {long && <button type="button" className="button small quiet" onClick={() => setAll(true)}>{t('json.more', { n: value.length - LONG })}</button>}
    </span>
  );
}
