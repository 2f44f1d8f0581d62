/** A form made from a JSON schema. What it has no field for is written as JSON. */
import { useId, useState, type ReactElement } from 'react';
import type { Dict, Schema } from '../api/types';
import { t } from '../i18n';

/** A schema without references and alternatives with null. */
export function resolved(schema: Schema | undefined, root: Schema, depth = 0): Schema {
  if (!schema || depth > 8) return {};
  if (schema.$ref) {
    const name = schema.$ref.split('/').at(-1) ?? '';
    const { $ref: _, ...rest } = schema;
    return { ...resolved(root.$defs?.[name], root, depth + 1), ...rest };
  }
  if (schema.allOf?.length === 1) { const { allOf, ...rest } = schema; return { ...resolved(allOf[0], root, depth + 1), ...rest }; }
  const options = schema.anyOf?.filter(({ type }) => type !== 'null');
  if (options?.length === 1) { const { anyOf: _, ...rest } = schema; return { ...resolved(options[0], root, depth + 1), ...rest }; }
  return schema;
}

interface Props { schema: Schema; value: Dict; onChange: (value: Dict) => void }

export function SchemaForm({ schema, value, onChange }: Props): ReactElement {
  const fields = Object.entries(schema.properties ?? {});
  const set = (name: string, next: unknown): void => {
    const { [name]: _, ...rest } = value;
    onChange(next === undefined ? rest : { ...rest, [name]: next });
  };
  if (fields.length === 0) return <p className="muted">{t('assistants.nofields')}</p>;
  return <div className="schema-form">{fields.map(([name, field]) => <Field key={name} name={name} schema={resolved(field, schema)} required={schema.required?.includes(name) ?? false} value={value[name]} onChange={(next) => set(name, next)} />)}</div>;
}

interface FieldProps { name: string; schema: Schema; required: boolean; value: unknown; onChange: (value: unknown) => void }

function Field({ name, schema, required, value, onChange }: FieldProps): ReactElement {
  const id = useId();
  const label = schema.title ?? name;
  const hint = schema.description;
  const kind = Array.isArray(schema.type) ? schema.type.find((one) => one !== 'null') : schema.type;
  const placeholder = schema.default === undefined || schema.default === null ? '' : String(typeof schema.default === 'object' ? JSON.stringify(schema.default) : schema.default);
  if (kind === 'boolean') {
    return <div className="field"><label className="check"><input type="checkbox" checked={value === undefined ? schema.default === true : value === true} onChange={(event) => onChange(event.target.checked)} />{label}</label>{hint && <p className="muted">{hint}</p>}</div>;
  }
  return (
    <div className="field">
      <label htmlFor={id}>{label}{required && <span aria-hidden="true"> *</span>}</label>
      {schema.enum
        ? <select id={id} value={value === undefined ? '' : JSON.stringify(value)} onChange={(event) => onChange(event.target.value === '' ? undefined : JSON.parse(event.target.value) as unknown)}><option value="">{placeholder || '—'}</option>{schema.enum.map((one) => <option key={String(one)} value={JSON.stringify(one)}>{String(one)}</option>)}</select>
        : kind === 'integer' || kind === 'number'
          ? <input id={id} type="number" step={kind === 'integer' ? 1 : 'any'} min={schema.minimum} max={schema.maximum} placeholder={placeholder} value={typeof value === 'number' ? value : ''} onChange={(event) => onChange(event.target.value === '' ? undefined : Number(event.target.value))} />
          : kind === 'string'
            ? <textarea id={id} rows={String(value ?? placeholder).length > 60 ? 4 : 1} placeholder={placeholder} value={typeof value === 'string' ? value : ''} onChange={(event) => onChange(event.target.value === '' ? undefined : event.target.value)} />
            : <JsonField id={id} value={value} onChange={onChange} />}
      {hint && <p className="muted">{hint}</p>}
    </div>
  );
}

export function JsonField({ id, value, onChange, rows = 3, label }: { id?: string; value: unknown; onChange: (value: unknown) => void; rows?: number; label?: string }): ReactElement {
  const [text, setText] = useState(value === undefined ? '' : JSON.stringify(value, null, 2));
  const [wrong, setWrong] = useState('');
  const write = (next: string): void => {
    setText(next);
    try {
      onChange(next.trim() === '' ? undefined : JSON.parse(next) as unknown);
      setWrong('');
    } catch (error) {
      setWrong(t('json.wrong', { why: (error as Error).message }));
    }
  };
  return <><textarea id={id} aria-label={label} className="mono" rows={rows} value={text} onChange={(event) => write(event.target.value)} aria-invalid={wrong !== ''} spellCheck={false} />{wrong && <p className="wrong" role="alert">{wrong}</p>}</>;
}
