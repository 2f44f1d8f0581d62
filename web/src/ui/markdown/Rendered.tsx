/** Markdown with tables, code and LaTeX. The text is never HTML, and nothing in it is fetched. */
import 'katex/dist/katex.min.css';
import katex from 'katex';
import { useEffect, useLayoutEffect, useRef, useState, type ComponentProps, type ReactElement } from 'react';
import ReactMarkdown, { type Components } from 'react-markdown';
import remarkGfm from 'remark-gfm';
import remarkMath from 'remark-math';
import { copy } from '../../app';
import { t } from '../../i18n';
import { Icon } from '../Icon';
import { highlighted } from './highlight';

const COMPONENTS: Components = {
  a: ({ href, children }) => (href ? <a href={href} target="_blank" rel="noopener noreferrer">{children}</a> : <span>{children}</span>),
  // A picture would be fetched from somewhere else: it is a link to press.
  img: ({ src, alt }) => (typeof src === 'string' && src ? <a href={src} target="_blank" rel="noopener noreferrer">{alt || src}</a> : <span>{alt}</span>),
  pre: ({ children }) => <>{children}</>,
  code: CodeOrWord,
  table: ({ children }) => <div className="table-box" role="region" aria-label={t('chat.table')} tabIndex={0}><table>{children}</table></div>,
  h1: ({ children }) => <h3>{children}</h3>,
  h2: ({ children }) => <h3>{children}</h3>,
  h3: ({ children }) => <h4>{children}</h4>,
  h4: ({ children }) => <h4>{children}</h4>,
  h5: ({ children }) => <h4>{children}</h4>,
  h6: ({ children }) => <h4>{children}</h4>,
};

const KATEX = { strict: false, trust: false, throwOnError: false, maxExpand: 100, maxSize: 20 };

/**
 * Every way models write LaTeX, as `$$…$$`. A single dollar begins a formula only where it cannot be money: right before a
 * word, with its partner right after one and not before a digit.
 */
const withDollars = (text: string): string =>
  text.split(/(```[\s\S]*?(?:```|$)|`[^`\n]*`)/g).map((part, n) => (n % 2 ? part : part
    .replace(/\\\[([\s\S]+?)\\\]/g, (_, inside: string) => `\n$$\n${inside.trim()}\n$$\n`)
    .replace(/\\\(([^\n]+?)\\\)/g, (_, inside: string) => `$$${inside.trim()}$$`)
    .replace(/(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\d$])/g, (_, inside: string) => `$$${inside}$$`))).join('');

export default function Rendered({ text }: { text: string }): ReactElement {
  return (
    <ReactMarkdown remarkPlugins={[remarkGfm, [remarkMath, { singleDollarTextMath: false }]]} components={COMPONENTS}>
      {withDollars(text)}
    </ReactMarkdown>
  );
}

function CodeOrWord({ className, children }: ComponentProps<'code'>): ReactElement {
  const text = typeof children === 'string' ? children : Array.isArray(children) ? children.join('') : '';
  if (className?.includes('math-')) return <Formula text={text} display={className.includes('math-display')} />;
  const language = /language-([\w+#-]+)/.exec(className ?? '')?.[1] ?? '';
  return language || text.includes('\n') ? <Code text={text.replace(/\n$/, '')} language={language} /> : <code>{children}</code>;
}

/** KaTeX draws into the element itself: as markup, its styles would be turned away by the page's policy. */
function Formula({ text, display }: { text: string; display: boolean }): ReactElement {
  const element = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    if (!element.current) return;
    try {
      katex.render(text, element.current, { ...KATEX, displayMode: display });
    } catch {
      element.current.textContent = text;
    }
  }, [text, display]);
  return <span ref={element} className={display ? 'formula' : ''} />;
}

function Code({ text, language }: { text: string; language: string }): ReactElement {
  const [coloured, setColoured] = useState<ReactElement | null>(null);
  useEffect(() => {
    // Not at each token: colours may come a moment later than words.
    const timer = setTimeout(() => setColoured(text.length < 40_000 ? highlighted(text, language) : null), 120);
    return () => clearTimeout(timer);
  }, [text, language]);
  const ready = coloured && coloured.props && (coloured.props as { 'data-text'?: string })['data-text'] === text ? coloured : text;
  return (
    <div className="code">
      <div className="code-head"><span>{language || t('chat.code')}</span>
        <button type="button" className="button small quiet" onClick={() => void copy(text)}><Icon name="copy" />{t('page.copy')}</button>
      </div>
      <pre tabIndex={0}><code>{ready}</code></pre>
    </div>
  );
}
