/** What the page weighs over the wire: the first load is what index.html and its static imports fetch. Fails above the budget. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const FIRST = 220;
const ALL = 450;
const out = process.env.PAGE_OUT ?? '../api/static';
const weigh = (name) => gzipSync(readFileSync(join(out, name))).length / 1000;
const scripts = readdirSync(join(out, 'assets')).filter((name) => /\.(js|css)$/.test(name)).map((name) => `assets/${name}`);

const first = new Set(['index.html']);
const visit = (name) => {
  if (first.has(name)) return;
  first.add(name);
  for (const [, imported] of readFileSync(join(out, name), 'utf8').matchAll(/(?:from|^import|;import)\s*["']\.\/([^"']+\.js)["']/g)) visit(`assets/${imported}`);
};
for (const [, name] of readFileSync(join(out, 'index.html'), 'utf8').matchAll(/\/static\/(assets\/[^"']+\.(?:js|css))/g)) visit(name);

const sum = (names) => [...names].reduce((total, name) => total + weigh(name), 0);
const [now, all] = [sum(first), sum(['index.html', ...scripts])];
console.log(`first load ${now.toFixed(1)} kB of ${FIRST}, all ${all.toFixed(1)} kB of ${ALL} (gzip)`);
if (now > FIRST || all > ALL) process.exit(1);
