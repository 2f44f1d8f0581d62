/** A run's frames from first to last, across dropped connections: no frame is lost, none comes twice. */

import * as api from './api.js';
import { readFrames } from './sse.js';

/** @typedef {import('./sse.js').Frame} Frame */

const PAUSES = [300, 800, 1500, 3000, 5000, 8000, 8000, 8000];

/**
 * Yield the frames of a run until its `done` or `error`.
 *
 * A stream that breaks off is taken up again behind the last frame seen. `onLink` hears `false` when the connection is
 * lost and `true` when it is back.
 * @param {(signal: AbortSignal) => Promise<Response>} open asks for the run's first stream
 * @param {{signal: AbortSignal, runId?: string|null, onLink?: (up: boolean) => void}} options
 * @returns {AsyncGenerator<Frame>}
 */
export async function* followRun(open, { signal, runId = null, onLink = () => {} }) {
  let lastId = 0;
  let response = await open(signal);
  for (let tries = 0; ; tries += 1) {
    try {
      for await (const frame of readFrames(response.body)) {
        if (signal.aborted) return;
        if (frame.id !== null) {
          if (frame.id <= lastId) continue;
          lastId = frame.id;
        }
        if (frame.event === 'session') runId = frame.data.run_id;
        tries = 0;
        yield frame;
        if (frame.event === 'done' || frame.event === 'error') return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // A TypeError is how fetch and our watchdog say that the connection is gone.
      if (!(error instanceof TypeError)) throw error;
    }
    if (runId === null) throw new api.ApiError('network', '');
    onLink(false);
    response = await reconnect(runId, lastId, { tries, signal });
    onLink(true);
  }
}

async function reconnect(runId, lastId, { tries, signal }) {
  for (let n = tries; n < PAUSES.length; n += 1) {
    await pause(PAUSES[n], signal);
    try {
      return await api.events(runId, lastId, signal);
    } catch (error) {
      if (!(error instanceof api.ApiError) || !error.retryable) throw error;
    }
  }
  throw new api.ApiError('lost', '');
}

/** Wait, or throw as soon as the signal is aborted. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener('abort', leave); resolve(); }, ms);
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
  });
}

const BEATS = { node: 180, intent: 250, tool: 300, token: 18, message: 100, interrupt: 200 };

/**
 * Yield the frames of a recording at a speed that can be watched, until `replay_done`.
 * @param {(signal: AbortSignal) => Promise<Response>} open
 * @param {{signal: AbortSignal, still?: boolean}} options `still`: without any pause
 * @returns {AsyncGenerator<Frame>}
 */
export async function* followRecording(open, { signal, still = false }) {
  const response = await open(signal);
  for await (const frame of readFrames(response.body)) {
    if (signal.aborted || frame.event === 'replay_done') return;
    if (!still && frame.event in BEATS) await pause(BEATS[frame.event], signal);
    yield frame;
  }
}
