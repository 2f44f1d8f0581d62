/** Requests to the service: where it is, the key it wants, and what its refusals mean. */

const KEY = 'threadline.key';

/** The server of `?apiUrl=`, without a slash at its end; empty is the one that served the page. */
export const apiUrl = readApiUrl();
export const apiHost = apiUrl === '' ? location.host : new URL(apiUrl).host;

function readApiUrl(): string {
  const given = new URLSearchParams(location.search).get('apiUrl');
  if (!given) return '';
  try {
    const url = new URL(given);
    if (url.protocol !== 'http:' && url.protocol !== 'https:') return '';
    return url.origin === location.origin ? '' : `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
  } catch {
    return '';
  }
}

/** A refusal by the service, or `network` where it could not be reached. `retryable`: asking again may help. */
export class ApiError extends Error {
  readonly kind: string;
  readonly status: number;
  readonly retryable: boolean;
  readonly wait: number | null;

  constructor(kind: string, message: string, { status = 0, retryable = true, wait = null as number | null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryable = retryable;
    this.wait = wait;
  }
}

export interface Asked { method?: string; body?: unknown; headers?: Record<string, string>; signal?: AbortSignal | undefined }

let askKey: (wrong: boolean) => Promise<string | null> = async () => null;
export const keysFrom = (ask: typeof askKey): void => { askKey = ask; };

/** Keys are kept for the tab, and each server has its own. */
const slot = `${KEY}${apiUrl && `:${apiUrl}`}`;
export const keptKey = (): string | null => sessionStorage.getItem(slot);

export async function request(path: string, asked: Asked = {}): Promise<Response> {
  for (let wrong = false; ; wrong = true) {
    const used = keptKey();
    const response = await send(path, asked, used);
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    if (keptKey() !== used) continue; // another request has asked meanwhile: there is a newer key to try first
    sessionStorage.removeItem(slot);
    const key = await askKey(wrong || used !== null);
    if (key === null) throw await refusal(response);
    sessionStorage.setItem(slot, key);
  }
}

async function send(path: string, { method = 'GET', body, headers = {}, signal }: Asked, key: string | null): Promise<Response> {
  const all: Record<string, string> = { ...headers };
  if (body !== undefined) all['Content-Type'] = 'application/json';
  if (key !== null) Object.assign(all, apiUrl ? { 'x-api-key': key } : { Authorization: `Bearer ${key}` });
  const options: RequestInit = { method, headers: all, cache: 'no-store' };
  if (signal) options.signal = signal;
  if (body !== undefined) options.body = JSON.stringify(body);
  try {
    return await fetch(apiUrl + path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError('network', '');
  }
}

const KINDS: Record<number, string> = { 401: 'denied', 403: 'denied', 404: 'missing', 409: 'conflict', 413: 'large', 422: 'invalid', 429: 'limited' };

async function refusal(response: Response): Promise<ApiError> {
  let problem: Record<string, unknown> = {};
  try {
    problem = await response.json() as Record<string, unknown>;
  } catch {
    // A proxy may answer with something that is no JSON: the status alone has to do.
  }
  const { status } = response;
  const known = KINDS[status] ?? (status >= 500 ? 'unavailable' : 'invalid');
  const kind = typeof problem.kind === 'string' ? problem.kind : known;
  const detail = typeof problem.detail === 'string' ? problem.detail : '';
  const wait = Number(response.headers.get('retry-after')) || null;
  return new ApiError(kind, detail, { status, wait, retryable: status >= 500 || status === 429 || status === 409 });
}

export async function json<T>(path: string, asked: Asked = {}): Promise<T> {
  const response = await request(path, asked);
  return (response.status === 204 ? null : await response.json()) as T;
}

export const post = <T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> => json<T>(path, { method: 'POST', body, signal });
export const at = encodeURIComponent;
