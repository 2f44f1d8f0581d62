/** Server-sent events read from a fetch response: a POST can be read this way, and resumed with our own header. */

/** `run` is the run a frame of a replay is of. @typedef {{id: number|null, run: string|null, event: string, data: any}} Frame */

const SILENCE = 60_000;

/**
 * Read the frames of an event stream. Lines may end in CRLF, LF or CR; comments keep the stream awake.
 * Throws when no byte came for a minute (a heartbeat is due every 15 s), so that a dead connection is noticed.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<Frame>}
 */
export async function* readFrames(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let fields = blank();
  try {
    for (;;) {
      const { done, value } = await awake(reader.read());
      if (done) return;
      const text = rest + decoder.decode(value, { stream: true });
      // A CR at the very end may be half of a CRLF: it waits for the next chunk.
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') {
          if (fields.data.length) yield { id: fields.id, run: fields.run, event: fields.event, data: JSON.parse(fields.data.join('\n')) };
          fields = blank();
        } else {
          take(fields, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const blank = () => ({ id: /** @type {number|null} */ (null), run: /** @type {string|null} */ (null), event: 'message', data: /** @type {string[]} */ ([]) });

function take(fields, line) {
  const colon = line.indexOf(':');
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
  if (name === 'data') fields.data.push(value);
  else if (name === 'event') fields.event = value;
  else if (name === 'id') {
    const [, run, id] = /^(?:(.+):)?(\d+)$/.exec(value) ?? [];
    if (id) Object.assign(fields, { id: Number(id), run: run ?? null });
  }
}

function awake(reading) {
  let timer = 0;
  const silent = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TypeError('the stream fell silent')), SILENCE);
  });
  return Promise.race([reading, silent]).finally(() => clearTimeout(timer));
}
