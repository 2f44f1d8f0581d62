/** What a model wrote, as Markdown. Lazy: the parser and KaTeX are fetched when there is something to show. Never HTML. */
import { Component, lazy, memo, Suspense, useDeferredValue, useState, type ReactElement, type ReactNode } from 'react';
import { t } from '../i18n';

const Rendered = lazy(() => import('./markdown/Rendered'));
const LONG = 60_000;

/** A text that breaks the parser is shown as it is. */
class Safe extends Component<{ text: string; children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };
  static getDerivedStateFromError(): { broken: boolean } { return { broken: true }; }
  override render(): ReactNode { return this.state.broken ? <Plain text={this.props.text} /> : this.props.children; }
}

const Plain = ({ text }: { text: string }): ReactElement => <p className="plain">{text}</p>;

export const Markdown = memo(function Markdown({ text }: { text: string }): ReactElement {
  const [all, setAll] = useState(LONG);
  const settled = useDeferredValue(text);
  if (text.length > LONG) {
    return (
      <>
        <Plain text={text.slice(0, all)} />
        {text.length > all && <button type="button" className="button small" onClick={() => setAll(all + LONG * 5)}>{t('json.more', { n: text.length - all })}</button>}
      </>
    );
  }
  return (
    <Safe text={settled}>
      <Suspense fallback={<Plain text={settled} />}><Rendered text={settled} /></Suspense>
    </Safe>
  );
});
