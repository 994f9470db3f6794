/** When to ask for the unread list; knows nothing of pages. What its parts promise is said in types.d.ts. */

const SECOND = 1000;

export const timing = Object.freeze({
  interval: 30 * SECOND,
  hiddenInterval: 300 * SECOND,
  freshEnough: 5 * SECOND,
  elsewhere: 2 * SECOND,
  jitter: 0.1,
  timeout: 10 * SECOND,
  longestBackOff: 300 * SECOND,
  shortestWait: SECOND,
  longestWait: 86_400 * SECOND, // setTimeout counts in 32 bits; far beyond, it fires at once
});

/** How to ask: push will be another function in here. @type {import('./types').Transport} */
export const transport = {
  async poll({ url, etag, signal, fetch, now }) {
    const headers = new Headers({ Accept: 'application/json' });
    if (etag) headers.set('If-None-Match', etag);
    const response = await fetch(url, { headers, signal, cache: 'no-store', credentials: 'include' });
    const snapshot = response.status === 200 ? await response.json() : null;
    if (snapshot && !(Array.isArray(snapshot.notifications) && Number.isSafeInteger(snapshot.version))) {
      throw new TypeError('This is no unread list.');
    }
    const seconds = Number(response.headers.get('X-Poll-Interval'));
    return {
      status: response.status,
      snapshot: snapshot && { ...snapshot, imageOrigins: (response.headers.get('X-Image-Origins') ?? '').split(' ') },
      etag: response.headers.get('ETag'),
      interval: seconds > 0 ? seconds * SECOND : null,
      retryAfter: retryAfter(response, now),
    };
  },
};

/**
 * Seconds, or a date by the server's own clock. Only on 429 and 503: limiters send it with good answers too.
 */
function retryAfter(response, now) {
  const value = response.headers.get('Retry-After');
  if (!value || (response.status !== 429 && response.status !== 503)) return 0;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * SECOND;
  const serverTime = Date.parse(response.headers.get('Date') ?? '');
  const wait = Date.parse(value) - (Number.isNaN(serverTime) ? now() : serverTime);
  return wait > 0 ? wait : 0; // also for what is no date at all
}

const withinReason = (wait) => Math.min(Math.max(wait, timing.shortestWait), timing.longestWait);

// A listener's mistake must not stop the polling.
function safely(tell) {
  try {
    tell();
  } catch (error) {
    reportError(error);
  }
}

const defaults = {
  onNews: () => {},
  fetch: (input, init) => globalThis.fetch(input, init),
  now: () => Date.now(),
  setTimer: (callback, wait) => setTimeout(callback, wait),
  clearTimer: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

/** @implements {import('./types').Polling} */
export class Poller {
  #options;
  #etag;
  #interval;
  #running = false;
  #leading = true;
  #hidden = false;
  #timer = null;
  #asking = null; // an answer is believed only while its poll is the one in here
  #actions = 0;
  #failures = 0;
  #notBefore = 0;
  #due = 0;
  #knownSince = -Infinity; // nothing older is believed
  #snapshot = null;
  #state = null;
  #freshAt = null;

  constructor(options) {
    this.#options = { ...defaults, ...options };
    this.#etag = options.etag ?? null;
    this.#interval = withinReason(options.interval ?? timing.interval);
    if (this.#etag) this.#freshAt = this.#now();
  }

  get running() { return this.#running; }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#state = null;
    this.wake();
  }

  stop() {
    this.#running = false;
    this.#drop();
  }

  pollNow() {
    if (!this.#running) return;
    this.#etag = null;
    this.#state = null; // whoever asks is told how it went, even if it went as before
    this.#drop();
    this.#pollWhenAllowed();
  }

  async act(action) {
    this.#actions += 1;
    this.#drop();
    try {
      return await action();
    } finally {
      this.#actions -= 1;
      this.#knownSince = this.#now();
      this.pollNow();
    }
  }

  wake() {
    if (!this.#running || !this.#leading || this.#asking) return;
    const age = Math.abs(this.#now() - this.#knownSince);
    this.#drop();
    if (age >= timing.freshEnough) this.#pollWhenAllowed();
    else if (this.#failures) this.#arm(Math.max(timing.freshEnough - age, this.#notBefore - this.#now()));
    else this.#arm(this.#rhythm(false)); // even where nobody looks: whoever led is gone
  }

  hide(hidden) {
    if (hidden === this.#hidden) return;
    this.#hidden = hidden;
    if (!hidden) this.wake();
    else if (this.#timer !== null && this.#failures === 0) this.#arm(this.#rhythm());
  }

  lead(leading) {
    if (leading === this.#leading) return;
    this.#leading = leading;
    if (leading) {
      this.wake();
    } else {
      this.#clearTimer(this.#timer);
      this.#timer = null;
    }
  }

  hear({ startedAt, state, snapshot, etag, interval, failures, notBefore, due, freshAt }) {
    const outdated = startedAt < this.#knownSince && this.#knownSince <= this.#now();
    if (!this.#running || this.#actions > 0 || outdated) return;
    this.#drop();
    this.#knownSince = startedAt;
    this.#interval = withinReason(interval);
    this.#failures = failures;
    this.#notBefore = notBefore;
    this.#freshAt = freshAt;
    this.#arm(failures ? Math.max(due - this.#now(), 0) : this.#rhythm());
    if (failures) {
      this.#tell(state);
    } else if (etag !== null && etag === this.#etag) {
      this.#tell('fresh');
    } else if (snapshot) {
      this.#keep(snapshot, etag);
    } else {
      this.pollNow();
    }
  }

  expectChange() {
    if (!this.#running || !this.#leading || this.#actions > 0) return;
    this.#drop();
    this.#etag = null;
    this.#knownSince = this.#now();
    this.#arm(Math.max(timing.elsewhere, this.#notBefore - this.#now()));
  }

  #now() { return this.#options.now(); }

  #clearTimer(timer) { this.#options.clearTimer(timer); }

  #drop() {
    this.#clearTimer(this.#timer);
    this.#timer = null;
    if (!this.#asking) return;
    const { abort, timeout } = this.#asking;
    this.#asking = null;
    this.#clearTimer(timeout);
    abort.abort();
  }

  #pollWhenAllowed() {
    if (this.#actions > 0) return; // the end of the last one polls
    const wait = this.#notBefore - this.#now();
    if (wait > 0) this.#arm(wait);
    else this.#poll();
  }

  #arm(wait) {
    this.#clearTimer(this.#timer);
    this.#due = this.#now() + wait;
    this.#timer = this.#leading ? this.#options.setTimer(() => this.#poll(), wait) : null;
  }

  #rhythm(hidden = this.#hidden) {
    const interval = hidden ? Math.max(this.#interval, timing.hiddenInterval) : this.#interval;
    const rhythm = withinReason(interval * (1 + timing.jitter * (2 * this.#options.random() - 1)));
    const spent = Math.max(this.#now() - this.#knownSince, 0); // a clock can be set back
    return Math.max(rhythm - spent, 0);
  }

  async #poll() {
    const startedAt = this.#now();
    this.#knownSince = startedAt;
    const abort = new AbortController();
    const asking = { abort, timeout: this.#options.setTimer(() => abort.abort(), timing.timeout) };
    this.#asking = asking;

    let answer = null;
    try {
      answer = await transport.poll({ ...this.#options, etag: this.#etag, signal: abort.signal });
    } catch {
      // no network, a time-out, or not JSON
    }
    if (this.#asking !== asking) return;
    this.#asking = null;
    this.#clearTimer(asking.timeout);

    if (answer?.status === 200 || answer?.status === 304) this.#succeed(answer, startedAt);
    else if (answer?.status === 401) this.#end();
    else this.#fail(answer);
  }

  // The timer comes before the listeners: one that calls stop() or act() has the last word.

  #succeed(answer, startedAt) {
    this.#failures = 0;
    this.#freshAt = startedAt;
    this.#notBefore = 0;
    if (answer.interval) this.#interval = withinReason(answer.interval);
    this.#arm(this.#rhythm());
    if (answer.snapshot) this.#keep(answer.snapshot, answer.etag);
    else this.#tell('fresh');
    this.#share();
  }

  #keep(snapshot, etag) {
    this.#snapshot = snapshot;
    this.#etag = etag;
    safely(() => this.#options.onSnapshot(snapshot));
    this.#tell('fresh');
  }

  #fail(answer) {
    const ceiling = Math.max(timing.longestBackOff, this.#interval);
    const backOff = Math.min(this.#interval * 2 ** this.#failures, ceiling) * this.#options.random();
    const patience = (answer?.retryAfter ?? 0) * (1 + timing.jitter * this.#options.random());
    this.#failures += 1;
    this.#notBefore = patience ? this.#now() + withinReason(patience) : 0;
    this.#arm(withinReason(Math.max(backOff, patience)));
    this.#tell(answer?.status === 404 || answer?.status === 410 ? 'gone' : 'stale');
    this.#share();
  }

  #end() {
    this.#running = false;
    this.#knownSince = -Infinity;
    this.#snapshot = null;
    this.#etag = null;
    this.#tell('signed out');
  }

  #share() {
    if (!this.#running || this.#actions > 0) return; // a listener may have stopped it, or begun a change
    safely(() => this.#options.onNews({
      startedAt: this.#knownSince, state: this.#state, snapshot: this.#snapshot, etag: this.#etag, interval: this.#interval,
      failures: this.#failures, notBefore: this.#notBefore, due: this.#due, freshAt: this.#freshAt,
    }));
  }

  #tell(state) {
    if (state === this.#state || (!this.#running && state !== 'signed out')) return;
    this.#state = state;
    safely(() => this.#options.onState(state, this.#freshAt));
  }
}
