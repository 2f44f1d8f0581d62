/** A conversation as a file: Markdown to read, JSON with all there is. */
import type { Session } from '../session';
import { shownMessages } from '../session';
import { readMessage } from './messages';

const slug = (text: string): string => text.toLocaleLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 50);

export const fileName = (s: Session, ending: string): string => `${slug(s.title ?? '') || s.threadId || 'session'}.${ending}`;

const fenced = (text: string): string => {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([ticks]) => ticks.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}json\n${text}\n${fence}`;
};

export function asMarkdown(s: Session): string {
  const parts = [`# ${s.title ?? s.threadId ?? ''}`];
  for (const message of shownMessages(s).map(readMessage)) {
    if (message.role === 'user') parts.push(`## You\n\n${message.text}`);
    else if (message.role === 'assistant') {
      if (message.text) parts.push(`## Agent\n\n${message.text}`);
      for (const call of message.calls) parts.push(`**${call.name}**\n\n${fenced(JSON.stringify(call.args, null, 2))}`);
    } else if (message.role === 'tool') parts.push(`**${message.name ?? 'tool'}** →\n\n${fenced(message.text)}`);
  }
  return `${parts.join('\n\n')}\n`;
}

export const asJson = (s: Session): string =>
  `${JSON.stringify({ thread_id: s.threadId, title: s.title, checkpoint_id: s.leaf, values: s.past?.values ?? s.values, next: s.next, interrupts: s.interrupts }, null, 2)}\n`;
