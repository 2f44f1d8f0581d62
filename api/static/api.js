/** The service's HTTP API, one function per call. */

const KEY = 'threadline.key';

/** @type {(wrong: boolean) => Promise<string|null>} */
let askKey = async () => null;

/** Say who asks the reader for a key when the service wants one. @param {typeof askKey} ask */
export const keysFrom = (ask) => { askKey = ask; };

/** A refusal by the service, or `network` where it could not be reached. `retryable` says whether asking again may help. */
export class ApiError extends Error {
  /** @param {string} kind @param {string} message @param {{status?: number, retryable?: boolean}} [more] */
  constructor(kind, message, { status = 0, retryable = true } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryable = retryable;
  }
}

/**
 * @param {string} path
 * @param {{method?: string, body?: any, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 */
async function request(path, options = {}) {
  for (let wrong = false; ; wrong = true) {
    const used = sessionStorage.getItem(KEY);
    const response = await send(path, options, used);
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    // Another request may have asked meanwhile: then there is a newer key to try first.
    if (sessionStorage.getItem(KEY) !== used) continue;
    sessionStorage.removeItem(KEY);
    const key = await askKey(wrong || used !== null);
    if (key === null) throw await refusal(response);
    sessionStorage.setItem(KEY, key);
  }
}

async function send(path, { method = 'GET', body, headers = {}, signal }, key) {
  const all = { ...headers };
  if (body !== undefined) all['Content-Type'] = 'application/json';
  if (key !== null) all.Authorization = `Bearer ${key}`;
  try {
    return await fetch(path, {
      method, headers: all, signal, cache: 'no-store', body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError('network', '');
  }
}

/** @param {Response} response */
async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy may answer with something that is no JSON: the status alone has to do.
  }
  const { status } = response;
  const kind = typeof problem.kind === 'string' ? problem.kind : status >= 500 ? 'unavailable' : 'invalid';
  const detail = typeof problem.detail === 'string' ? problem.detail : '';
  return new ApiError(kind, detail, { status, retryable: status >= 500 || status === 429 || status === 409 });
}

const get = async (path, signal) => (await request(path, { signal })).json();
const at = (id) => encodeURIComponent(id);

function list(path, { before, limit }) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (before) query.set('before', before);
  return get(`${path}?${query}`);
}

/** @param {{message: string, sessionId: string|null}} turn @param {AbortSignal} signal */
export const chat = ({ message, sessionId }, signal) =>
  request('/chat', { method: 'POST', signal, body: { message, stream: true, ...(sessionId && { session_id: sessionId }) } });

/** Answer an interrupt. @param {{sessionId: string, interruptId: string, value: any}} answer @param {AbortSignal} signal */
export const resume = ({ sessionId, interruptId, value }, signal) =>
  request('/chat', {
    method: 'POST', signal, body: { session_id: sessionId, resume: { interrupt_id: interruptId, value }, stream: true },
  });

/** The frames of a run after `lastId`. @param {string} runId @param {number} lastId @param {AbortSignal} signal */
export const events = (runId, lastId, signal) =>
  request(`/runs/${at(runId)}/events`, { signal, headers: { 'Last-Event-ID': String(lastId) } });

/** @param {string} runId */
export const cancel = (runId) => request(`/runs/${at(runId)}/cancel`, { method: 'POST' });

/** @param {{before?: string|null, limit?: number}} [page] */
export const sessions = ({ before = null, limit = 30 } = {}) => list('/sessions', { before, limit });

/** @param {string} id */
export const session = (id) => get(`/sessions/${at(id)}`);

/** @param {string} id */
export const removeSession = (id) => request(`/sessions/${at(id)}`, { method: 'DELETE' });

/** @param {string} id @param {{before?: string|null, limit?: number}} [page] */
export const checkpoints = (id, { before = null, limit = 50 } = {}) =>
  list(`/sessions/${at(id)}/checkpoints`, { before, limit });

/** @param {string} id @param {string} checkpointId */
export const checkpoint = (id, checkpointId) => get(`/sessions/${at(id)}/checkpoints/${at(checkpointId)}`);

/** @param {string} id @param {string|null} checkpointId null: all of it @param {'recorded'|'rerun'} mode @param {AbortSignal} [signal] */
export const replay = (id, checkpointId, mode, signal) => {
  const changes = mode === 'rerun' && { changes: { models: 'live', tools: 'live' } }; // who asks again wants a new answer
  return request(`/sessions/${at(id)}/replay`, { method: 'POST', signal, body: { mode, ...(checkpointId && { checkpoint_id: checkpointId }), ...changes } });
};
