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

// The poller's. All times are milliseconds, and moments are counted from 1970 by the browser's clock.

/** Things go well, badly, or no further. */
export type State = 'fresh' | 'stale' | 'signed out';

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
