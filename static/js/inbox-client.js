/**
 * What can be asked of the service: one function per endpoint, and one kind of error. Knows nothing of pages.
 * Who is asking is said by the session's cookie, or by a token of the host's.
 */

import { fetchWithToken } from './token.js';

/** Why a call failed. `status` is 0 where no answer came, and 412 where somebody else has signed in. */
export class InboxError extends Error {
  /** @param {number} status @param {{ title?: string, detail?: string, request_id?: string }} [problem] */
  constructor(status, problem = {}) {
    super(problem.detail || problem.title || (status ? `The service answered ${status}.` : 'The service did not answer.'));
    this.name = 'InboxError';
    this.status = status;
    this.problem = problem;
  }
}

const TIMEOUT = 10_000; // milliseconds, for the whole answer
const MOST_IDS = 200; // in one call

export class InboxClient {
  #unsent = new Set();

  /**
   * @param {object} [options]
   * @param {string | URL} [options.service] where the service lives; unless given, where this file came from
   * @param {string} [options.user] whose inbox this is about: nobody else's is ever changed, whoever signs in meanwhile
   * @param {() => string | Promise<string>} [options.token] gives a token, a new one each time it is asked
   * @param {string | URL} [options.tokenUrl] answers `{"token": "…"}` to whoever is signed in at the host
   * @param {typeof globalThis.fetch} [options.fetch]
   */
  constructor({ service, user, token, tokenUrl, fetch = (input, init) => globalThis.fetch(input, init) } = {}) {
    this.service = new URL(service ?? new URL('../../', import.meta.url), globalThis.location?.href);
    if (!this.service.pathname.endsWith('/')) this.service.pathname += '/';
    this.user = user;
    /** `fetch` in the reader's name; the poller is given it too. @type {typeof globalThis.fetch} */
    this.fetch = token || tokenUrl
      ? fetchWithToken({ token, tokenUrl, fetch })
      : (input, init) => fetch(input, { credentials: 'include', ...init });
  }

  /** What the poller asks for. @returns {string} */
  get unreadUrl() { return this.url('notifications/unread'); }

  /** Reads that wait for the network. @returns {ReadonlySet<number>} */
  get unsent() { return this.#unsent; }

  /** @param {string} path below the service, or one that the service named itself @returns {string} */
  url(path) { return new URL(path, this.service).href; }

  // Reading

  /** One page. @param {{ state?: string, type?: string, limit?: number, before?: number }} [query] @returns {Promise<import('./types').Page>} */
  list(query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    return this.#call(`notifications?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`);
  }

  /** The page that another one named in `next`. @param {string} next @returns {Promise<import('./types').Page>} */
  nextPage(next) { return this.#call(next); }

  /** @param {number} id @returns {Promise<object>} */
  find(id) { return this.#call(`notifications/${id}`); }

  // One notification. `keepalive` lets the call outlive the page, for a link that is being followed.

  /** @param {number} id @param {{ keepalive?: boolean }} [how] @returns {Promise<import('./types').Counts>} */
  markRead(id, how) { return this.#call(`notifications/${id}/read`, {}, how); }

  /** @param {number} id @returns {Promise<import('./types').Counts>} */
  markUnread(id) { return this.#call(`notifications/${id}/unread`, {}); }

  /** @param {number} id @returns {Promise<import('./types').Counts>} */
  archive(id) { return this.#call(`notifications/${id}/archive`, {}); }

  /** @param {number} id @returns {Promise<import('./types').Counts>} */
  unarchive(id) { return this.#call(`notifications/${id}/unarchive`, {}); }

  // Many

  /** @param {import('./types').Which} which @returns {Promise<import('./types').Counts>} */
  markManyRead(which) { return this.#call('notifications/read', which); }

  /** @param {import('./types').Which} which @returns {Promise<import('./types').Counts>} */
  markManyUnread(which) { return this.#call('notifications/unread', which); }

  /** @param {import('./types').Which} which @returns {Promise<import('./types').Counts>} */
  archiveMany(which) { return this.#call('notifications/archive', which); }

  /** @param {import('./types').Which} which @returns {Promise<import('./types').Counts>} */
  markSeen(which) { return this.#call('notifications/seen', which); }

  /** Puts back what a change to many did. @param {number} number its `undo` @returns {Promise<import('./types').Counts>} */
  undo(number) { return this.#call('notifications/undo', { undo: number }); }

  // What to hear of

  /** @param {string} type @param {boolean} muted @returns {Promise<{ type: string, muted: boolean }>} */
  mute(type, muted) { return this.#call(`preferences/${encodeURIComponent(type)}`, { muted }, { method: 'PUT' }); }

  // Without a network

  /**
   * As markRead; where there is no network the id is kept for `sendUnsent()`, and the answer is null.
   * @param {number} id @param {{ keepalive?: boolean }} [how] @returns {Promise<import('./types').Counts | null>}
   */
  async markReadSoon(id, how) {
    try {
      return await this.markRead(id, how);
    } catch (error) {
      if (!(error instanceof InboxError) || error.status !== 0) throw error;
      this.#unsent.add(id);
      return null;
    }
  }

  /** Sends what was kept, once: ids that mean nothing any more are skipped by the service. */
  async sendUnsent() {
    const ids = [...this.#unsent].slice(0, MOST_IDS);
    if (!ids.length) return null;
    const answer = await this.markManyRead({ ids });
    ids.forEach((id) => this.#unsent.delete(id));
    return answer;
  }

  // Signing out

  /** Ends the session in this browser; the person's other sessions go on. A token has none. */
  async signOut() {
    this.#unsent.clear();
    // The answer is a page, which another origin may neither read nor even receive: asking tells whether it worked.
    await this.#answer(this.url('logout'), { method: 'POST', body: new URLSearchParams(), mode: 'no-cors' }).catch(() => {});
    const { status } = await this.#answer(this.unreadUrl, { cache: 'no-store' });
    if (status !== 401) throw new InboxError(status);
  }

  // The way out

  /**
   * @template T @param {string} path @param {object} [body] makes it a POST
   * @param {{ keepalive?: boolean, method?: string }} [how] @returns {Promise<T>}
   */
  async #call(path, body, { keepalive = false, method = body ? 'POST' : 'GET' } = {}) {
    const headers = new Headers({ Accept: 'application/json' });
    if (this.user !== undefined) headers.set('Belfry-User', encodeURIComponent(this.user));
    if (body) headers.set('Content-Type', 'application/json');
    const response = await this.#answer(this.url(path), {
      method, headers, body: body && JSON.stringify(body), cache: 'no-store', keepalive,
    });
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new InboxError(response.status, content);
    return content;
  }

  /** @param {string} address @param {RequestInit} init */
  async #answer(address, init) {
    try {
      return await this.fetch(address, { ...init, signal: AbortSignal.timeout(TIMEOUT) });
    } catch {
      throw new InboxError(0);
    }
  }
}
