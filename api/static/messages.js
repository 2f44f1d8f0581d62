/** Messages as the page reads them, whichever way the service writes them. */

/**
 * @typedef {object} Message
 * @property {string|null} id
 * @property {'user'|'assistant'|'tool'|'system'} role
 * @property {string} text
 * @property {{id: string, name: string, args: any}[]} calls the tools an assistant message asks for
 * @property {string|null} callId the call a tool message answers
 * @property {string|null} name
 * @property {boolean} failed
 * @property {string|null} time ISO 8601
 * @property {Record<string, any>} metadata
 */

const ROLES = { human: 'user', user: 'user', ai: 'assistant', assistant: 'assistant', tool: 'tool', system: 'system' };

/** The text of a content: a string, or a list of blocks of which the text ones are read. @param {any} content */
export function textOf(content) {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return content === null || content === undefined ? '' : JSON.stringify(content);
  return content.map((block) => (typeof block === 'string' ? block : block?.text ?? '')).join('');
}

/** @param {any} raw a row of a session or a message in a state @returns {Message} */
export function readMessage(raw) {
  const metadata = raw.metadata ?? {};
  const from = (name) => raw[name] ?? metadata[name];
  return {
    id: raw.id ?? null,
    role: ROLES[raw.role ?? raw.type?.replace(/MessageChunk$/, '').toLowerCase()] ?? 'system',
    text: textOf(raw.content),
    calls: from('tool_calls') ?? [],
    callId: from('tool_call_id') ?? null,
    name: from('name') ?? null,
    failed: from('status') === 'error',
    time: raw.timestamp ?? null,
    metadata,
  };
}

/** What a tool message holds: JSON where it is JSON, its text otherwise. @param {string} text */
export function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * Messages turn by turn: each begins with what the user said.
 * @param {Message[]} messages
 * @returns {{user: Message|null, rest: Message[]}[]}
 */
export function turnsOf(messages) {
  const turns = [];
  for (const message of messages) {
    if (message.role === 'system') continue;
    if (message.role === 'user') turns.push({ user: message, rest: [] });
    else if (turns.length) turns[turns.length - 1].rest.push(message);
    else turns.push({ user: null, rest: [message] });
  }
  return turns;
}

/**
 * The turns of a session: those its state holds, with what only the session document knows of them.
 *
 * The state has every tool call, and only the branch that is gone on with. The document has what a turn cost, what a
 * stopped turn had said so far, and a question that is not in the state yet.
 * @param {Message[]} state
 * @param {Message[]} documented
 */
export function joinedTurns(state, documented) {
  const known = turnsOf(documented);
  if (state.length === 0) return known;
  const turns = turnsOf(state);
  let at = 0;
  for (const turn of turns) {
    const found = known.findIndex(({ user }, index) => index >= at && user?.text === turn.user?.text);
    if (found < 0) continue;
    at = found + 1;
    const answer = known[found].rest.at(-1);
    if (!answer) continue;
    const last = turn.rest.findLast(({ role, text }) => role === 'assistant' && text);
    if (last) last.metadata = { ...answer.metadata, ...last.metadata };
    else turn.rest.push(answer);
  }
  return [...turns, ...known.slice(at).filter(({ user, rest }) => user && rest.length === 0)];
}
