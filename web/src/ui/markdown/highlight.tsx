/** Code in colours, for the languages people ask agents about. */
import bash from 'highlight.js/lib/languages/bash';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import python from 'highlight.js/lib/languages/python';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';
import { createLowlight } from 'lowlight';
import type { ReactElement, ReactNode } from 'react';

const lowlight = createLowlight({ bash, css, diff, javascript, json, python, sql, typescript, xml, yaml });
lowlight.registerAlias({ bash: ['sh', 'shell', 'zsh', 'console'], javascript: ['js', 'jsx'], typescript: ['ts', 'tsx'], python: ['py'], xml: ['html', 'svg'], yaml: ['yml'] });

interface Node { type: string; value?: string; children?: Node[]; properties?: { className?: string[] } }

export function highlighted(text: string, language: string): ReactElement | null {
  if (!language || !lowlight.registered(language)) return null;
  return <span data-text={text}>{drawn((lowlight.highlight(language, text) as unknown as Node).children)}</span>;
}

const drawn = (nodes: Node[] = []): ReactNode =>
  nodes.map((node, n) => (node.type === 'text' ? node.value : <span key={n} className={node.properties?.className?.join(' ')}>{drawn(node.children)}</span>));
