/** The conversation: its turns, and scrolling that follows the answer until the reader scrolls. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState, type ReactElement } from 'react';
import { complain, leavePast, words } from '../app';
import { t, useLanguage } from '../i18n';
import { useExternal } from '../model/external';
import type { RunView } from '../model/run';
import { shownTurns } from '../model/turns';
import * as session from '../session';
import { Composer } from './Composer';
import { Icon, IconButton } from './Icon';
import { TurnView } from './Turn';
import { Welcome } from './Welcome';

const AT_ONCE = 15;
const NEAR = 80;

export function Chat(): ReactElement {
  useLanguage();
  const s = useExternal(session.session);
  const messages = session.shownMessages(s);
  const segments = useMemo(() => session.segments(s), [s.tree, s.leaf, s.past]);
  const { recording } = s;
  const run = recording ? recording.run : s.past ? null : s.run;
  const turns = useMemo(
    () => shownTurns({ messages, segments: recording ? [] : segments, documented: recording || s.past ? new Map() : s.documented, runs: s.past || recording ? new Map() : s.runs, run, views: recording?.views, intent: s.past ? s.past.values.intent : recording ? null : s.values.intent }),
    [messages, segments, s.documented, s.runs, run, s.past, s.values, recording],
  );
  const [shown, setShown] = useState(AT_ONCE);
  useEffect(() => setShown(AT_ONCE), [s.threadId]);
  // What is in sight can be edited and answered again, and for that its checkpoints are needed.
  useEffect(() => { if (s.older !== null && segments.length < Math.min(turns.length, Math.max(8, shown - AT_ONCE))) void session.readOlder(); }, [s.older, segments.length, turns.length, shown]);
  const scroller = useRef<HTMLDivElement>(null);
  const follow = useRef(true);
  const [away, setAway] = useState(false);
  const height = useRef(0);
  const top = useRef<HTMLDivElement>(null);

  const toEnd = (): void => { const box = scroller.current; if (box) box.scrollTop = box.scrollHeight; };
  useEffect(() => { follow.current = true; toEnd(); }, [s.threadId, s.opening, s.leaf]);
  useEffect(() => {
    const box = scroller.current;
    const inside = box?.firstElementChild;
    if (!box || !inside) return undefined;
    const observer = new ResizeObserver(() => { if (follow.current) toEnd(); });
    observer.observe(inside);
    const looked = (): void => {
      const far = box.scrollHeight - box.scrollTop - box.clientHeight > NEAR;
      // Only what the reader does turns following off; growth of the answer alone does not.
      if (!far) follow.current = true;
      setAway(far);
    };
    const yielded = (event: Event): void => {
      const up = event instanceof WheelEvent ? event.deltaY < 0 : event instanceof KeyboardEvent ? ['ArrowUp', 'PageUp', 'Home'].includes(event.key) : true;
      if (up && box.scrollHeight > box.clientHeight) follow.current = false;
    };
    box.addEventListener('scroll', looked, { passive: true });
    for (const name of ['wheel', 'touchmove', 'keydown', 'pointerdown']) box.addEventListener(name, yielded, { passive: true });
    return () => {
      observer.disconnect();
      box.removeEventListener('scroll', looked);
      for (const name of ['wheel', 'touchmove', 'keydown', 'pointerdown']) box.removeEventListener(name, yielded);
    };
  }, []);
  // Older turns come as the reader nears the top, and what is being read stays where it is.
  useEffect(() => {
    const mark = top.current;
    if (!mark || turns.length <= shown) return undefined;
    const observer = new IntersectionObserver(([entry]) => {
      if (!entry?.isIntersecting || follow.current) return;
      height.current = scroller.current?.scrollHeight ?? 0;
      setShown((n) => n + AT_ONCE);
    }, { root: scroller.current, rootMargin: '300px' });
    observer.observe(mark);
    return () => observer.disconnect();
  }, [turns.length, shown]);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (box && height.current) box.scrollTop += box.scrollHeight - height.current;
    height.current = 0;
  }, [shown]);

  const empty = s.threadId === null && turns.length === 0 && !s.unsent;
  const busy = session.isBusy(s);
  const still = s.past !== null || recording !== null;
  const first = Math.max(0, turns.length - shown);
  return (
    <>
      <div className="scroller" id="scroller" ref={scroller} tabIndex={-1}>
        <div className="column">
          {empty && <Welcome />}
          {s.opening && <p className="muted loading">{t('chat.loading')}</p>}
          {first > 0 && (
            <div className="earlier" ref={top}>
              <button type="button" className="button quiet" onClick={() => { height.current = scroller.current?.scrollHeight ?? 0; follow.current = false; setShown(shown + AT_ONCE); }}>{t('chat.earlier', { n: first })}</button>
            </div>
          )}
          <section className="turns" aria-label={t('chat.title')}>
            {turns.length > 0 && <h2 className="hidden">{t('chat.title')}</h2>}
            {turns.slice(first).map((turn, n) => {
              const newest = first + n === turns.length - 1;
              return <TurnView key={turn.key} turn={turn} tree={s.tree} newest={newest} busy={busy} still={still} interrupts={newest ? s.interrupts : null} next={newest ? s.next : null} />;
            })}
          </section>
          {turns.length === 0 && !empty && !s.opening && <Bare run={run} />}
          {s.unsent && (
            <div className="error" role="alert">
              <p><Icon name="warn" /><strong>{t('error.title')}</strong></p><p>{words(s.unsent.error)}</p>
              <div className="row"><button type="button" className="button" onClick={() => void session.resend().catch(complain)}><Icon name="again" />{t('turn.retry')}</button></div>
            </div>
          )}
        </div>
      </div>
      <div className="dock">
        {away && turns.length > 0 && <IconButton icon="down" className="jump" id="jump" label={t('chat.jump')} onClick={() => { follow.current = true; toEnd(); }} />}
        {s.reconnecting && <p className="connection" role="status">{t('error.reconnecting')}</p>}
        {recording ? <Recorder recording={recording} /> : (
          <>
            {s.past && <div className="past-note" role="note"><Icon name="history" /><span>{t('past.note', { n: s.past.checkpoint.step })}</span><button type="button" className="button small" onClick={leavePast}>{t('past.leave')}</button></div>}
            {s.queue.length > 0 && (
              <ol className="queue" aria-label={t('queue.title')}>
                {s.queue.map((text, n) => <li key={n}><span>{text}</span><IconButton icon="close" label={t('queue.remove')} onClick={() => session.unqueue(n)} /></li>)}
              </ol>
            )}
            <Composer />
          </>
        )}
      </div>
    </>
  );
}

/** A graph that is no conversation: what it holds, as it stands. */
function Bare({ run }: { run: RunView | null }): ReactElement {
  const s = useExternal(session.session);
  const turn = useMemo(() => shownTurns({ messages: [{ type: 'ai', content: '', id: 'state' }], segments: session.segments(s), documented: new Map(), runs: s.runs, run, intent: null })[0], [s, run]);
  if (!turn) return <></>;
  return <TurnView turn={turn} tree={s.tree} newest busy={session.isBusy(s)} still={false} interrupts={s.interrupts} next={s.next} />;
}

const SPEEDS = ['1', '2', '5', '20', 'max'];

function Recorder({ recording }: { recording: session.Recording }): ReactElement {
  const { status, speed, error } = recording;
  return (
    <div className="recorder" id="recording-note" role="note">
      <p><Icon name="film" /><strong>{t('recording.title')}</strong> {error ? t('recording.none') : t('recording.note')}</p>
      <div className="row">
        {status !== 'over' && <button type="button" className="button" onClick={() => session.pauseRecording(status === 'playing')}><Icon name={status === 'playing' ? 'pause' : 'play'} />{t(status === 'playing' ? 'recording.pause' : 'recording.go')}</button>}
        {status === 'over' && <span className="tag" data-over>{t('recording.over')}</span>}
        <label>{t('recording.speed')} <select value={speed} onChange={(event) => session.setSpeed(event.target.value)}>{SPEEDS.map((one) => <option key={one} value={one}>{one === 'max' ? t('recording.max') : `×${one}`}</option>)}</select></label>
        <button type="button" className="button" id="leave-recording" onClick={session.leaveRecording}>{t('recording.leave')}</button>
      </div>
    </div>
  );
}
