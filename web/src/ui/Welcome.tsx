/** What a new conversation begins with: some first prompts, or what is wrong with the service. */
import { useEffect, useState, type ReactElement } from 'react';
import { apiHost, apiUrl } from '../api/http';
import * as lg from '../api/langgraph';
import { complain, words } from '../app';
import { t, useLanguage, type Key } from '../i18n';
import { useExternal } from '../model/external';
import { chosenAssistant, connect, server } from '../server';
import * as session from '../session';
import { Icon, type IconName } from './Icon';

const PROMPTS: [IconName, Key, Key][] = [['calculator', 'prompt.1.title', 'prompt.1'], ['weather', 'prompt.2.title', 'prompt.2'], ['search', 'prompt.3.title', 'prompt.3'], ['chat', 'prompt.4.title', 'prompt.4']];

export function Welcome(): ReactElement {
  useLanguage();
  const now = useExternal(server);
  const assistant = chosenAssistant(now);
  const builtIn = useBuiltIn(now.own, assistant?.assistant_id);
  if (now.status === 'away' && now.error) {
    return (
      <section className="empty">
        <h2>{t('away.title', { host: apiHost })}</h2>
        <p>{words(now.error)}</p>
        <p className="muted">{t(apiUrl ? 'away.other' : 'away.own')}</p>
        <button type="button" className="button primary" onClick={() => void connect()}><Icon name="again" />{t('turn.retry')}</button>
      </section>
    );
  }
  const metadata = assistant?.metadata?.prompts;
  const own = Array.isArray(metadata) ? metadata.filter((one): one is string => typeof one === 'string').slice(0, 6) : [];
  const ask = (text: string): void => { void session.say(text).catch(complain); };
  return (
    <section className="empty">
      <h2>{t('empty.title')}</h2>
      <p className="muted">{assistant?.description && !builtIn ? assistant.description : t('empty.text')}</p>
      <div className="prompts">
        {own.map((text) => <button key={text} type="button" className="prompt" onClick={() => ask(text)}><Icon name="chat" /><span>{text}</span></button>)}
        {own.length === 0 && builtIn !== null && PROMPTS.filter(([, , key]) => builtIn || key === 'prompt.4').map(([icon, title, key]) => (
          <button key={key} type="button" className="prompt" onClick={() => ask(t(key))}><Icon name={icon} /><span className="prompt-title">{t(title)}</span><span>{t(key)}</span></button>
        ))}
      </div>
    </section>
  );
}

/** Whether the assistant is the agent that comes with Threadline: what it can be asked is known. Null until the server has said. */
function useBuiltIn(own: boolean, id: string | undefined): boolean | null {
  const [found, setFound] = useState<boolean | null>(null);
  useEffect(() => {
    if (!id) return undefined;
    if (!own) { setFound(false); return undefined; }
    let gone = false;
    lg.graph(id, false).then(({ nodes }) => { if (!gone) setFound(['analyze_intent', 'execute_tools', 'respond'].every((name) => nodes.some((node) => node.id === name))); }, () => setFound(false));
    return () => { gone = true; };
  }, [own, id]);
  return found;
}
