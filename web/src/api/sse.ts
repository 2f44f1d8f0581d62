/** Server-sent events, read from a response's body. The browser's own reader knows only GET. */

export interface Frame { id: string | null; event: string; data: unknown }

/** The whole frames of a stream; one that was cut off at the end is not one. */
export async function* readFrames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest: string[] = [];
  let fields: { id: string | null; event: string; data: string[] } = blank();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (decoder.decode(value, { stream: true })).split('\n');
      rest.push(lines[0] ?? '');
      if (lines.length === 1) continue;
      lines[0] = rest.join('');
      rest = [lines.pop() ?? ''];
      for (const line of lines) {
        const text = line.endsWith('\r') ? line.slice(0, -1) : line;
        if (text === '') {
          if (fields.data.length) yield { id: fields.id, event: fields.event, data: parsed(fields.data.join('\n')) };
          fields = blank();
        } else if (!text.startsWith(':')) take(fields, text);
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

const blank = (): { id: string | null; event: string; data: string[] } => ({ id: null, event: 'message', data: [] });

function take(fields: ReturnType<typeof blank>, line: string): void {
  const colon = line.indexOf(':');
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
  if (name === 'data') fields.data.push(value);
  else if (name === 'event') fields.event = value;
  else if (name === 'id') fields.id = value;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
