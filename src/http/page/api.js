// Calls of the service. The page uses the public API only: curl can do whatever it can.

/** Timeout of a call: longer than the service's own limit for an answer. */
const TIMEOUT_MS = 35_000;

/** Beyond this number of remembered answers, all are forgotten. */
const MAX_REMEMBERED = 60;

/** The reason why there is no answer: a problem of the service, or no connection (status 0). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   * @param {string} [title]
   */
  constructor(status, detail, title) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

/**
 * The last answer of each path, for If-None-Match.
 * @type {Map<string, {tag: string, body: any}>}
 */
const remembered = new Map();

/** Forgets all answers, because they may be those of another reader. */
export const forget = () => remembered.clear();

/**
 * @param {string} path
 * @param {RequestInit} init
 */
async function ask(path, init) {
  let response;
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    response = await fetch(path, { ...init, signal, cache: "no-store" });
  } catch {
    throw new Problem(0, "The service does not answer.");
  }
  const { ok, status } = response;
  if (ok || status === 304) return response;
  const { detail = `The response is ${status}.`, title } = await response.json().catch(() => ({}));
  throw new Problem(status, detail, title);
}

/**
 * Reads a path, with the time of the answer by the service's clock. An unchanged answer is not sent
 * again.
 * @param {string} path
 * @returns {Promise<{body: any, at: Date}>}
 */
export async function read(path) {
  const known = remembered.get(path);
  const response = await ask(path, { headers: known ? { "If-None-Match": known.tag } : {} });
  const at = new Date(response.headers.get("date") ?? Date.now());
  if (known && response.status === 304) return { body: known.body, at };
  const body = await response.json();
  const tag = response.headers.get("etag");
  if (remembered.size >= MAX_REMEMBERED) forget();
  if (tag) remembered.set(path, { tag, body });
  return { body, at };
}

/**
 * Reads a path, and returns a problem as a value instead of throwing it.
 * @param {string} path
 * @returns {Promise<import("./types").Outcome<any>>}
 */
export async function tryRead(path) {
  try {
    return { ok: (await read(path)).body };
  } catch (problem) {
    if (problem instanceof Problem) return { problem };
    throw problem;
  }
}

/**
 * Makes a change, and returns the status of the answer: 202 if the change waits for the store.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 */
export async function change(method, path, body) {
  const headers = body && { "Content-Type": "application/json" };
  const response = await ask(path, { method, headers, body: body && JSON.stringify(body) });
  return response.status;
}
