/** Assistants: a graph with its settings, named and versioned. */
import { useEffect, useState, type FormEvent, type ReactElement } from 'react';
import * as lg from '../api/langgraph';
import type { Assistant, Dict, Schema } from '../api/types';
import { complain, tell } from '../app';
import { moment, t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import { chooseAssistant, readAssistants, server } from '../server';
import { Icon } from '../ui/Icon';
import { JsonField, resolved, SchemaForm } from './SchemaForm';

export default function Assistants(): ReactElement {
  useLanguage();
  const { assistants, assistantId } = useExternal(server);
  const [chosen, setChosen] = useState<string | null>(assistantId);
  const assistant = assistants.find(({ assistant_id: id }) => id === chosen) ?? null;
  return (
    <div className="assistants">
      <ul className="assistant-list" aria-label={t('assistants.title')}>
        {assistants.map((one) => (
          <li key={one.assistant_id}>
            <button type="button" aria-pressed={one.assistant_id === chosen} onClick={() => setChosen(one.assistant_id)}>
              <strong>{one.name || one.graph_id}</strong>{one.assistant_id === assistantId && <span className="tag">{t('assistants.used')}</span>}
              <span className="muted">{one.graph_id} · {t('assistants.version', { n: one.version })}</span>
            </button>
          </li>
        ))}
        <li><button type="button" id="new-assistant" aria-pressed={chosen === null} onClick={() => setChosen(null)}><span><Icon name="plus" /> {t('assistants.new')}</span></button></li>
      </ul>
      <Form key={`${chosen} ${assistant?.version}`} assistant={assistant} onSaved={setChosen} />
    </div>
  );
}

function Form({ assistant, onSaved }: { assistant: Assistant | null; onSaved: (id: string) => void }): ReactElement {
  const { assistants, assistantId, info } = useExternal(server);
  const graphs = [...new Set([...(info?.graphs ?? []), ...assistants.map(({ graph_id: graph }) => graph)])];
  const [graphId, setGraphId] = useState(assistant?.graph_id ?? graphs[0] ?? '');
  const [name, setName] = useState(assistant?.name ?? '');
  const [description, setDescription] = useState(assistant?.description ?? '');
  const [context, setContext] = useState<Dict>(contextOf(assistant));
  const [schema, setSchema] = useState<Schema | null>(null);
  const [raw, setRaw] = useState(false);
  const [versions, setVersions] = useState<Assistant[]>([]);
  const owner = assistants.find(({ graph_id: graph, assistant_id: id }) => (assistant ? id === assistant.assistant_id : graph === graphId));
  const ownerId = owner?.assistant_id;
  useEffect(() => {
    if (!ownerId) return undefined;
    let gone = false;
    lg.schemas(ownerId).then((all) => {
      if (gone) return;
      const found = [all.context_schema, all.config_schema].find((one) => one && Object.keys(one.properties ?? {}).length > 0) ?? null;
      setSchema(found);
      if (!found) setRaw(true);
    }, () => { if (!gone) setRaw(true); });
    return () => { gone = true; };
  }, [ownerId]);
  const id = assistant?.assistant_id;
  useEffect(() => { if (id) lg.assistantVersions(id).then(setVersions, complain); }, [id]);
  const after = async (saved: Assistant, words: string): Promise<void> => { await readAssistants(); onSaved(saved.assistant_id); tell(words); };
  const save = (event: FormEvent): void => {
    event.preventDefault();
    const body = { graph_id: graphId, name: name.trim() || graphId, description, context };
    (id ? lg.changeAssistant(id, body) : lg.createAssistant(body)).then((saved) => after(saved, t('assistants.saved', { n: saved.version })), complain);
  };
  return (
    <form className="assistant-form" onSubmit={save}>
      <div className="field"><label htmlFor="assistant-name">{t('assistants.name')}</label><input id="assistant-name" value={name} onChange={(event) => setName(event.target.value)} /></div>
      <div className="field"><label htmlFor="assistant-text">{t('assistants.description')}</label><input id="assistant-text" value={description} onChange={(event) => setDescription(event.target.value)} /></div>
      {!assistant && <div className="field"><label htmlFor="assistant-graph">{t('assistants.graph')}</label><select id="assistant-graph" value={graphId} onChange={(event) => setGraphId(event.target.value)}>{graphs.map((one) => <option key={one}>{one}</option>)}</select></div>}
      <h3>{t('assistants.context')}</h3>
      {schema && <label className="check"><input type="checkbox" checked={raw} onChange={(event) => setRaw(event.target.checked)} />{t('assistants.raw')}</label>}
      {raw || !schema ? <JsonField rows={8} label={t('assistants.context')} value={context} onChange={(next) => setContext((next ?? {}) as Dict)} /> : <SchemaForm schema={resolved(schema, schema)} value={context} onChange={setContext} />}
      <div className="row">
        <button type="submit" className="button primary">{t(id ? 'assistants.save' : 'assistants.create')}</button>
        {id && id !== assistantId && <button type="button" className="button" onClick={() => { chooseAssistant(id); tell(t('assistants.using')); }}>{t('assistants.use')}</button>}
        {id && assistant?.metadata?.created_by !== 'system' && <button type="button" className="button danger-quiet" onClick={() => void lg.deleteAssistant(id).then(() => readAssistants(), complain)}>{t('assistants.delete')}</button>}
      </div>
      {versions.length > 0 && (
        <>
          <h3>{t('assistants.versions')}</h3>
          <ol className="versions">
            {versions.map((one) => (
              <li key={one.version}>
                <span>{t('assistants.version', { n: one.version })} <span className="muted">{moment(one.created_at)}</span></span>
                {one.version === assistant?.version ? <span className="tag">{t('assistants.active')}</span> : <button type="button" className="button small" onClick={() => id && void lg.activateVersion(id, one.version).then((saved) => after(saved, t('assistants.activated', { n: one.version })), complain)}>{t('assistants.activate')}</button>}
              </li>
            ))}
          </ol>
        </>
      )}
    </form>
  );
}

function contextOf(assistant: Assistant | null): Dict {
  const { context, config } = assistant ?? {};
  if (context && Object.keys(context).length) return context;
  const configurable = (config as { configurable?: Dict } | undefined)?.configurable;
  return configurable ?? {};
}
