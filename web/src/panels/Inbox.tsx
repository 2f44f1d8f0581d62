/** Everything that waits for a person, over all sessions. */
import { useEffect, useState, type ReactElement } from 'react';
import * as lg from '../api/langgraph';
import type { Interrupt, Thread } from '../api/types';
import { app, words } from '../app';
import { ago, t, toolName, useLanguage } from '../i18n';
import * as session from '../session';
import { sessions, waits } from '../sessions';
import { requestIn } from '../ui/InterruptCard';

export default function Inbox({ onClose }: { onClose: () => void }): ReactElement {
  useLanguage();
  const [threads, setThreads] = useState<Thread[] | null>(null);
  const [problem, setProblem] = useState<unknown>(null);
  useEffect(() => {
    lg.searchThreads({ status: 'interrupted', limit: 200, select: ['thread_id', 'status', 'updated_at', 'metadata', 'interrupts'] })
      .then((found) => setThreads(found.filter(waits)), setProblem);
  }, []);
  if (problem) return <p className="wrong" role="alert">{words(problem)}</p>;
  if (!threads) return <p className="muted">{t('chat.loading')}</p>;
  if (threads.length === 0) return <p className="muted">{t('inbox.none')}</p>;
  return (
    <ul className="inbox">
      {threads.map((thread) => {
        const asked = Object.values(thread.interrupts ?? {}).flat();
        const title = sessions.get().rows.find(({ id }) => id === thread.thread_id)?.title ?? thread.metadata?.title;
        return (
          <li key={thread.thread_id}>
            <button type="button" onClick={() => { onClose(); app.change({ sidebar: false, checkpoint: null }); void session.open(thread.thread_id); }}>
              <strong>{typeof title === 'string' && title ? title : t('sessions.untitled')}</strong><span className="muted">{ago(thread.updated_at)}</span>
              {asked.map((one, n) => <span key={n} className="inbox-asked">{askedFor(one)}</span>)}
            </button>
          </li>
        );
      })}
    </ul>
  );
}

function askedFor({ value }: Interrupt): string {
  const request = requestIn(value);
  if (request) return t('inbox.approve', { name: request.actions.map(({ name }) => toolName(name)).join(', ') });
  const said = typeof value === 'string' ? value : (value as { question?: unknown } | null)?.question;
  return (typeof said === 'string' ? said : JSON.stringify(value) ?? '').slice(0, 160);
}
