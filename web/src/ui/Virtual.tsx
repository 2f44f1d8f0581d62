/** A list of rows of one height, of which only those in sight are in the document. */
import { useEffect, useRef, useState, type ReactElement, type ReactNode } from 'react';

interface Props<T> { items: readonly T[]; height: number; current: number; label: string; className?: string; draw: (item: T, n: number) => ReactNode; keyOf: (item: T) => string; onEnd?: (() => void) | undefined }

const BEYOND = 6;

export function Virtual<T>({ items, height, current, label, className = '', draw, keyOf, onEnd }: Props<T>): ReactElement {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 400 });
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const look = (): void => setSeen({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener('scroll', look, { passive: true });
    return () => { observer.disconnect(); element.removeEventListener('scroll', look); };
  }, []);
  useEffect(() => {
    const element = box.current;
    if (!element || current < 0) return;
    const top = current * height;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + height > element.scrollTop + element.clientHeight) element.scrollTop = top + height - element.clientHeight;
  }, [current, height]);
  const from = Math.max(0, Math.floor(seen.top / height) - BEYOND);
  const to = Math.min(items.length, Math.ceil((seen.top + seen.height) / height) + BEYOND);
  const atEnd = to >= items.length;
  useEffect(() => { if (atEnd) onEnd?.(); }, [atEnd, items.length]);
  return (
    <div className={`virtual ${className}`} ref={box} tabIndex={0} role="group" aria-label={label}>
      <ol style={{ height: items.length * height }} aria-label={label}>
        {items.slice(from, to).map((item, n) => <li key={keyOf(item)} style={{ top: (from + n) * height, height }} aria-setsize={items.length} aria-posinset={from + n + 1}>{draw(item, from + n)}</li>)}
      </ol>
    </div>
  );
}
