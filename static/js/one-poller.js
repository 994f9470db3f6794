/**
 * One poller per browser: the pages that show one inbox form a group, named after its user. A lock of that name makes
 * one of them the leader, a channel of that name carries what it learns. docs/decisions.md tells who leads when.
 */

import { Poller } from './poller.js';

class Group {
  #name;
  #onLead;
  #channel;
  #waiting = new AbortController();
  #taking = false;
  #left = false;
  #release = () => {};
  leads = false;

  constructor(name, onLead, onMessage) {
    this.#name = name;
    this.#onLead = onLead;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => onMessage(data);
    this.#queue();
  }

  tell(message) { this.#channel.postMessage(message); }

  takeLead() {
    if (this.leads || this.#taking || this.#left) return;
    this.#taking = true;
    this.#waiting.abort();
    this.#request({ steal: true });
  }

  leave() {
    this.#left = true;
    this.#waiting.abort();
    this.#release();
    this.#channel.close();
  }

  #queue() {
    this.#waiting = new AbortController();
    this.#request({ signal: this.#waiting.signal });
  }

  async #request(options) {
    const { signal } = options;
    try {
      await navigator.locks.request(this.#name, options, () => {
        if (this.#left) return undefined;
        this.#taking = false;
        this.#become(true);
        return new Promise((release) => { this.#release = () => release(undefined); });
      });
    } catch (error) {
      if (this.#left || signal?.aborted) return;
      const isTaken = error.name === 'AbortError'; // else locks are forbidden, as in a sandboxed frame
      this.#become(!isTaken);
      if (isTaken) this.#queue();
    }
  }

  #become(leads) {
    this.leads = leads;
    this.#onLead(leads);
  }
}

/** A Poller that shares its work, and knows when its page is looked at. */
export class OnePoller {
  #poller;
  #url;
  #user;
  #group = null;
  #listening = null;
  #told = false; // another page told us to ask: it need not be told back

  constructor({ user = null, onSnapshot, onState, ...options }) {
    this.#url = new URL(options.url, location.href).href;
    this.#user = user;
    this.#poller = new Poller({
      ...options,
      onSnapshot: (snapshot) => {
        this.#meet(snapshot.user);
        onSnapshot(snapshot);
      },
      onState: (state, freshAt) => {
        if (state === 'signed out') this.#meet(null);
        onState(state, freshAt);
      },
      onNews: (news) => {
        this.#told = false;
        this.#group?.tell({ news });
      },
    });
  }

  get leads() { return this.#group?.leads ?? true; }

  start() {
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    document.addEventListener('visibilitychange', () => this.#look(), { signal });
    for (const type of ['online', 'focus']) addEventListener(type, () => this.#poller.wake(), { signal });
    // In the back/forward cache a page may hold nothing.
    addEventListener('pagehide', () => this.#pause(), { signal });
    addEventListener('pageshow', ({ persisted }) => { if (persisted) this.#resume(); }, { signal });
    this.#resume();
  }

  stop() {
    this.#listening?.abort();
    this.#listening = null;
    this.#pause();
  }

  /** Asks now, for the whole list; after a 401, too. */
  pollNow() {
    if (!this.#listening) return;
    if (this.#poller.running) this.#poller.pollNow();
    else this.#poller.start();
  }

  act(action) {
    this.#group?.tell({ acting: true });
    return this.#poller.act(action);
  }

  /** Somebody has signed out, or in. */
  tellOthersToAsk() { this.#group?.tell({ ask: true }); }

  #resume() {
    this.#poller.hide(document.hidden);
    this.#poller.start();
    if (this.#user !== null) this.#join(this.#user);
  }

  #pause() {
    this.#poller.stop();
    this.#leave();
  }

  #look() {
    this.#poller.hide(document.hidden);
    if (document.hidden) {
      if (this.#group?.leads) this.#group.tell({ hiding: true });
    } else {
      this.#poller.start(); // somebody may have signed in meanwhile, in another page
      this.#group?.takeLead();
    }
  }

  #meet(user) {
    if (user === this.#user && this.#group) return;
    if (user !== this.#user && !this.#told) this.tellOthersToAsk();
    this.#user = user;
    this.#leave();
    if (user !== null) this.#join(user);
  }

  #join(user) {
    if (this.#group || !navigator.locks || !globalThis.BroadcastChannel) return;
    this.#poller.lead(false);
    this.#group = new Group(
      `belfry ${this.#url} ${user}`,
      (leads) => this.#poller.lead(leads),
      ({ news, acting, ask, hiding }) => {
        if (news) this.#poller.hear(news);
        if (acting) this.#poller.expectChange();
        if (ask) { this.#told = true; this.#poller.pollNow(); }
        if (hiding && !document.hidden) this.#group?.takeLead();
      },
    );
    if (!document.hidden) this.#group.takeLead();
  }

  #leave() {
    this.#group?.leave();
    this.#group = null;
    this.#poller.lead(true);
  }
}
