/** The shapes that the modules beside this file hand to each other. For readers and editors: no browser loads it. */

export interface Notification {
  id: number;
  type: string;
  title: string;
  body: string;
  body_html: string;
  url: string | null;
  actor: { name: string; url: string | null; image: string | null } | null;
  data: object;
  priority: 'low' | 'normal' | 'high';
  count: number;
  created_at: string;
  expires_at: string;
  seen_at: string | null;
  read_at: string | null;
  archived_at: string | null;
}

/** The unread list, as `GET /notifications/unread` describes it. */
export interface Snapshot {
  user: string;
  notifications: Notification[];
  unread_count: number;
  unseen_count: number;
  version: number;
  more: boolean;
  /** besides the service's own, where pictures of people may come from; of a header, added by the transport */
  imageOrigins: string[];
}

/** One page of `GET /notifications`. `next` is the path of the one after it. */
export interface Page {
  notifications: Notification[];
  next: string | null;
}

/** What every change answers with. `undo`: of a change to many; 0 where nothing changed. */
export interface Counts {
  unread_count: number;
  unseen_count: number;
  changed: number;
  undo?: number;
}

/** What a change to many is for: these, or all up to a snapshot's version. */
export type Which = { ids: number[] } | { through: number };

export type Fetch = typeof globalThis.fetch;

/** Gives a token of the host's, a new one each time it is asked. */
export type Token = () => string | Promise<string>;

export interface TokenOptions {
  token?: Token;
  /** answers `{"token": "…"}` to whoever is signed in at the host */
  tokenUrl?: string | URL | null;
  fetch?: Fetch;
}

// The poller's. All times are milliseconds, and moments are counted from 1970 by the browser's clock.

/** Things go well, badly, or no further. Gone: there is no service at that address. */
export type State = 'fresh' | 'stale' | 'gone' | 'signed out';

export interface PollerOptions {
  /** of the unread list */
  url: string;
  /** There is something new. */
  onSnapshot(snapshot: Snapshot): void;
  /** Things go differently from now on; what is shown is known to be true up to `freshAt`. */
  onState(state: State, freshAt: number | null): void;
  /** A poll of this page's own has ended. */
  onNews?(news: News): void;
  /** of a list the page came with: then the first poll is a mere 304 */
  etag?: string | null;
  /** whose list the page came with; for OnePoller */
  user?: string | null;
  interval?: number;
  fetch?: Fetch;
  now?(): number;
  setTimer?(callback: () => void, wait: number): unknown;
  clearTimer?(timer: any): void;
  /** from 0 up to 1 */
  random?(): number;
}

/**
 * `timing`: every number that decides when to ask. Milliseconds, but `jitter`, which is a part of the interval: pages
 * that were opened together drift apart.
 */
export interface Timing {
  /** until the server names another, in X-Poll-Interval */
  interval: number;
  /** while nobody sees the page */
  hiddenInterval: number;
  /** whoever looks again is not asked for */
  freshEnough: number;
  /** so long another page may take to tell how its change went */
  elsewhere: number;
  jitter: number;
  /** for the whole answer, body included */
  timeout: number;
  longestBackOff: number;
  /** whatever a header says */
  shortestWait: number;
  longestWait: number;
}

/**
 * `Poller`. The next poll is due an interval after the last one STARTED, and its timer is set when that one has ENDED:
 * a slow server is never asked twice at once, a fast one in an even rhythm.
 */
export interface Polling {
  readonly running: boolean;
  /** Polls until `stop()`, or until the server says that nobody is signed in. */
  start(): void;
  /** Leaves nothing behind: no timer, no request, and nobody is told anything any more. */
  stop(): void;
  /** Asks now, and for the whole list, for something has changed. A server that asked for patience is not pressed. */
  pollNow(): void;
  /**
   * Runs a change of the reader's own. The answer to a poll that began before its end could be older than what the
   * reader has just done: there is no poll during the change, and a full one right after it, come what may.
   */
  act<T>(action: () => Promise<T>): Promise<T>;
  /** Looked at, or online again: asks now, unless what is known is of just now. */
  wake(): void;
  /** While nobody sees the page, it asks rarely. */
  hide(hidden: boolean): void;
  /** Whether this page asks, or follows: then another one does, and `hear()` brings its news. */
  lead(leading: boolean): void;
  /** Takes what another page has learnt. */
  hear(news: News): void;
  /** Another page is changing something, and will tell; unless it goes away over it. */
  expectChange(): void;
}

/** How to ask: the one place where a transport is chosen. */
export interface Transport {
  poll(question: Question): Promise<Answer>;
}

/** What a transport is asked. */
export interface Question {
  url: string;
  /** of what is known already; null asks for the list in any case */
  etag: string | null;
  signal: AbortSignal;
  fetch: Fetch;
  now(): number;
}

/** What one poll brought. */
export interface Answer {
  status: number;
  /** with status 200 only */
  snapshot: Snapshot | null;
  etag: string | null;
  /** from now on; null where the server names none */
  interval: number | null;
  /** 0 where the server did not ask for patience */
  retryAfter: number;
}

/** What a poll taught one page, for the others. */
export interface News {
  startedAt: number;
  state: State;
  /** the newest known; null where the page itself came with the list */
  snapshot: Snapshot | null;
  etag: string | null;
  interval: number;
  /** polls in a row that brought nothing; 0: this one went well */
  failures: number;
  notBefore: number;
  due: number;
  freshAt: number | null;
}

// The bell's

/** Strings with `{names}` in them; by plural category (Intl.PluralRules) where they count something. */
export type Words = Record<string, string | Partial<Record<Intl.LDMLPluralRule, string>>>;
export type Say = (key: string, values?: Record<string, string | number>) => string;
