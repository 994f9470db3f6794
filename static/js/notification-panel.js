/**
 * What the bell opens: the list of what is unread, or of all, and what can be done with it. Nothing moves under the
 * reader's pointer or focus: while they are in the list, what is new waits behind a button, and what is gone stays,
 * shown as read. Each change is made by the client of the person whose list it was, and of nobody else.
 */

import { make } from './elements.js';
import { InboxClient } from './inbox-client.js';
import { closeWhenLeft, float, land } from './notification-float.js';
import { listenToKeys, shortcuts } from './notification-keys.js';
import { NotificationRow } from './notification-row.js';
import { emptyState, preferences, trouble } from './notification-states.js';
import { speaker } from './words.js';
import { english } from './words/panel.js';

const MANY = 10_000; // the service marks as many in one call; then the call is repeated

export class NotificationPanel {
  #bell;
  #region;
  #clientOfReader = null;
  #rows = new Map(); // id -> NotificationRow, newest first as in the list
  #version = 0; // of the newest snapshot of which everything is shown
  #showsAll = false; // what is read as well
  #next = undefined; // path of the page after the oldest row shown; null: there is none; undefined: as the snapshot says
  #isOpen = false;
  #ears = new AbortController(); // for listeners that live as long as the panel
  #minute = 0;
  #last = Promise.resolve(); // the change that comes before the next one

  /** @param {import('./notification-bell.js').NotificationBell} bell @param {any} region */
  constructor(bell, region) {
    this.#bell = bell;
    this.#region = region;
    const { language } = bell.dictionary;
    this.language = language;
    const say = this.say = speaker({ ...english, ...bell.dictionary }, language);
    const button = (name, onclick, attributes = {}) => make('button', { type: 'button', part: name, class: 'quiet', onclick, ...attributes }, say(name));
    this.heading = region.querySelector('h2');
    this.markAll = button('markAll', () => this.#markAll());
    this.filters = ['filterUnread', 'filterAll'].map((name, place) => make('button', {
      type: 'button', 'aria-pressed': String(!place), onclick: () => this.#filter(Boolean(place)),
    }, say(name)));
    this.filter = make('div', { class: 'filter', part: 'filter', role: 'group', 'aria-label': say('filter') }, ...this.filters);
    this.trouble = make('div', { 'aria-live': 'polite' });
    this.showNew = make('button', { type: 'button', part: 'show-new', class: 'show-new', hidden: true, onclick: () => this.#showNew() });
    this.list = make('ul', { part: 'list', role: 'list', 'aria-labelledby': 'heading' });
    this.older = button('showOlder', () => this.#showOlder(), { hidden: true });
    this.state = make('div', { class: 'state' });
    this.notice = make('div', { class: 'notice', 'aria-live': 'polite' });
    this.keys = shortcuts(say);
    this.help = make('button', {
      type: 'button', part: 'keys', class: 'round shortcuts', title: say('keys'), 'aria-label': say('keys'),
      'aria-expanded': 'false', 'aria-controls': 'keys', onclick: () => this.#help(),
    }, '?');
    this.alerts = make('div', { class: 'alerts' });
    const inbox = bell.getAttribute('inbox-url') ?? bell.address('');
    const footer = make('footer', {}, make('a', { href: inbox, part: 'see-all' }, say('seeAll')), preferences(bell, say, 'preferences'), this.help, this.keys);
    this.body = make('div', { class: 'scroll' }, this.trouble, this.list, this.older, this.state);
    region.replaceChildren(make('header', { part: 'header' }, this.heading, this.markAll, this.filter), this.showNew, this.body, this.notice, this.alerts, footer);

    const { signal } = this.#ears;
    listenToKeys(bell.root, signal, (key) => new Map(Object.entries(this.#keys())).get(key));
    addEventListener('online', () => this.#sendUnsent(), { signal });
    this.showState();
    this.draw();
  }

  // Opening and closing

  open() {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.alerts.replaceChildren(...(this.#bell.signs?.offerAlerts(this.say) ?? []));
    this.#filter(false);
    const outside = new AbortController();
    this.closing = outside;
    const { signal } = outside;
    float(this.#region, signal);
    closeWhenLeft(this.#bell, signal);
    this.#minute = setInterval(() => this.#rows.forEach((row) => row.tick()), 60_000);
  }

  close() {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.closing.abort();
    clearInterval(this.#minute);
    const hadFocus = this.#region.contains(this.#focused);
    if (!this.keys.hidden) this.#help();
    land(this.#region);
    if (hadFocus) this.#bell.button.focus();
    this.notice.replaceChildren();
  }

  stop() {
    this.close();
    this.#ears.abort();
  }

  // Drawing

  get #focused() { return this.#bell.root.activeElement ?? null; }

  get #isInUse() {
    return this.#isOpen && this.#rows.size > 0
      && (this.list.matches(':hover') || this.list.contains(this.#focused) || this.body.scrollTop + this.#region.scrollTop > 0);
  }

  /** Another person is signed in. */
  empty() {
    this.#rows.clear();
    this.list.replaceChildren();
    this.#next = undefined;
    this.#version = 0;
    this.#showsAll = false;
    this.filters.forEach((button, place) => button.setAttribute('aria-pressed', String(!place)));
    this.notice.replaceChildren();
  }

  /** Shows what is unread, or what is read as well. */
  async #filter(showsAll) {
    this.empty();
    if (showsAll) {
      this.#showsAll = true;
      this.filters.forEach((button, place) => button.setAttribute('aria-pressed', String(Boolean(place))));
    }
    this.draw();
    if (showsAll) await this.#showPage({ state: 'all' });
  }

  /** Shows the bell's snapshot, as far as that moves nothing under the reader's hands. */
  draw(asked = false) {
    const { snapshot } = this.#bell;
    if (snapshot) {
      const holdBack = !asked && this.#isInUse;
      const { notifications, version } = snapshot;
      const { unsent } = this.#client;
      const listed = new Map(notifications.map((one) => [one.id, one]));
      const oldest = snapshot.more ? notifications.at(-1)?.id ?? 0 : 0;
      for (const row of [...this.#rows.values()]) {
        const one = listed.get(row.id);
        // An id of before a restored backup is another notification's now.
        if (one && one.created_at !== row.time.dateTime) this.#remove(row);
        else if (one) { if (!unsent.has(row.id)) row.show(false); }
        else if (row.id < oldest || row.touched) continue;
        else if (holdBack || this.#showsAll) row.show(true);
        else this.#remove(row);
      }
      const missing = notifications.filter(({ id }) => !this.#rows.has(id) && !unsent.has(id));
      const waiting = holdBack ? missing.filter(({ id }) => id > this.#version) : [];
      missing.filter((one) => !waiting.includes(one)).forEach((one) => this.#insert(one));
      this.showNew.hidden = !waiting.length;
      this.showNew.textContent = waiting.length ? this.say('showNew', { count: waiting.length }) : '';
      if (!waiting.length) this.#version = version;
      this.older.hidden = !(this.#next === undefined ? snapshot.more && notifications.length <= this.#rows.size : this.#next);
      if (this.#isOpen && !waiting.length && this.#bell.unseen && !document.hidden) this.#markSeen();
    }
    this.#drawState();
  }

  /** @param {import('./types').Notification} notification */
  #insert(notification) {
    const { say, language } = this;
    const allowed = [new URL(this.#bell.address('')).origin, ...this.#bell.snapshot.imageOrigins];
    const row = new NotificationRow(notification, { say, language, isAllowedPicture: ({ origin }) => allowed.includes(origin) }, {
      follow: (row, leads) => this.#follow(row, Boolean(leads)),
      toggle: (row) => this.#toggle(row),
      archive: (row) => this.#archive(row),
    });
    this.#place(row);
    return row;
  }

  #place(row) {
    this.list.insertBefore(row.element, this.#inOrder().find(({ id }) => id < row.id)?.element ?? null);
    this.#rows.set(row.id, row);
  }

  /** The focus goes on to the next row, else to the one before, else to the heading. */
  #remove(row) {
    const hadFocus = row.element.contains(this.#focused);
    const all = this.#inOrder();
    const place = all.indexOf(row);
    this.#rows.delete(row.id);
    row.element.remove();
    if (hadFocus) (all[place + 1] ?? all[place - 1] ?? { main: this.heading }).main.focus();
    this.#drawState();
  }

  #inOrder() { return [...this.#rows.values()].sort((a, b) => b.id - a.id); }

  /** One of the four: loading, empty, trouble, signed out; or none, when there is a list. */
  #drawState() {
    const isOut = this.#bell.state === 'signed out';
    this.markAll.hidden = isOut || !this.#bell.unread;
    this.filter.hidden = isOut;
    this.list.hidden = !this.#rows.size;
    this.state.hidden = this.#rows.size > 0;
    const [name, parts] = emptyState(this.#bell, this.say);
    if (this.state.hidden || this.state.dataset.state === name) return;
    this.state.dataset.state = name;
    this.state.replaceChildren(...parts());
  }

  showState() {
    const { state } = this.#bell;
    if (state === 'signed out') this.empty();
    const hadFocus = this.trouble.contains(this.#focused);
    this.trouble.replaceChildren(...(state === 'stale' ? [trouble(this.#bell, this.say, this.language)] : []));
    if (hadFocus) (this.trouble.querySelector('button') ?? this.heading).focus();
    if (state === 'fresh') this.#sendUnsent();
    this.#drawState();
  }

  // Acting

  get #client() {
    const { snapshot, fetch } = this.#bell;
    if (!this.#clientOfReader || (snapshot && snapshot.user !== this.#clientOfReader.user)) {
      this.#clientOfReader = new InboxClient({ service: this.#bell.address(''), fetch, user: snapshot?.user });
    }
    return this.#clientOfReader;
  }

  /** One change after the other, as the reader made them: an undo must find things as its change left them. */
  #inTurn(change) {
    const turn = this.#last.then(() => this.#bell.act(change));
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Runs a change; if it fails `back` undoes what was shown of it. */
  async #do(change, back = () => {}, how = {}) {
    try {
      const answer = await (how.keepalive ? this.#bell.act(change) : this.#inTurn(change));
      if (!answer) this.#say('offline');
      else if ('unread_count' in answer) this.#bell.count(answer.unread_count, answer.unseen_count);
      return answer;
    } catch (error) {
      // Moved on with its group, or expired; or somebody else has signed in: the poll that follows shows it.
      if (error.status === 404 || error.status === 412) return null;
      back();
      this.#say('failed');
      this.#bell.emit('error', { error });
      return null;
    }
  }

  #say(key, values, ...more) {
    this.notice.replaceChildren(make('div', {}, make('p', {}, this.say(key, values)), ...more));
  }

  /** `restore` shows at once what the steps back will do. */
  #offerUndo(key, values, restore, steps, ...more) {
    this.#say(key, values, make('button', {
      type: 'button', class: 'quiet', part: 'undo', onclick: async () => {
        this.notice.replaceChildren();
        this.heading.focus();
        restore();
        for (const step of steps) await this.#do(step);
      },
    }, this.say('undo')), ...more);
  }

  #markSeen() {
    this.#bell.count(this.#bell.unread, 0);
    const [client, through] = [this.#client, this.#version];
    this.#inTurn(() => client.markSeen({ through })).catch(() => {}); // the poll that follows tells
  }

  #follow(row, leaves) {
    if (!row.read) this.#read(row, leaves);
  }

  async #read(row, keepalive = false) {
    row.touched = true;
    row.show(true);
    this.#bell.count(Math.max(this.#bell.unread - 1, 0), this.#bell.unseen);
    this.#bell.emit('read', { ids: [row.id] });
    const client = this.#client;
    await this.#do(() => client.markReadSoon(row.id, { keepalive }), () => row.show(false), { keepalive });
  }

  async #toggle(row) {
    if (!row.read) return this.#read(row);
    row.show(false);
    row.touched = false;
    const client = this.#client;
    return this.#do(() => client.markUnread(row.id), () => row.show(true));
  }

  async #archive(row) {
    const client = this.#client;
    const answer = await this.#do(() => client.archiveMany({ ids: [row.id] }));
    if (!answer) return;
    this.#remove(row);
    if (!answer.undo) return;
    // Whoever puts a thing away may want no more of its kind.
    const kind = row.type.replace(/[_.-]/g, ' ');
    const mute = make('button', { type: 'button', class: 'quiet', part: 'mute', onclick: () => this.#mute(client, row.type, kind) }, this.say('mute', { kind }));
    this.#offerUndo('archived', {}, () => row.read && this.#bringBack(row), [() => client.undo(answer.undo)], mute);
  }

  /** A row that no poll brings, for it is read. */
  #bringBack(row) {
    if (!this.#rows.has(row.id)) this.#place(row);
    this.#drawState();
  }

  async #mute(client, type, kind) {
    this.heading.focus();
    const done = await this.#do(() => client.mute(type, true));
    if (done) this.#offerUndo('muted', { kind }, () => {}, [() => client.mute(type, false)]);
  }

  async #markAll() {
    const [client, through] = [this.#client, this.#version];
    const rows = this.#inOrder().filter((row) => !row.read && row.id <= through);
    const unread = () => rows.forEach((row) => { row.touched = false; row.show(false); });
    const hadFocus = this.#focused === this.markAll;
    rows.forEach((row) => { row.touched = true; row.show(true); });
    const steps = [];
    let count = 0;
    for (;;) {
      const answer = await this.#do(() => client.markManyRead({ through }), unread);
      if (answer?.undo) steps.unshift(() => client.undo(answer.undo));
      count += answer?.changed ?? 0;
      if ((answer?.changed ?? 0) < MANY) break;
    }
    if (!count) return;
    this.#drawState();
    if (hadFocus && this.markAll.hidden) this.heading.focus();
    this.#bell.emit('read', { ids: rows.map(({ id }) => id) });
    this.#offerUndo('allRead', { count }, unread, steps);
  }

  async #sendUnsent() {
    const client = this.#client;
    if (client.unsent.size) await this.#do(() => client.sendUnsent());
  }

  #showNew() {
    this.draw(true);
    this.body.scrollTop = 0;
    this.#inOrder()[0]?.main.focus();
  }

  async #showOlder() {
    const first = await this.#showPage({ state: this.#showsAll ? 'all' : 'unread', before: this.#inOrder().at(-1)?.id });
    first?.main.focus();
  }

  /** The page that goes on from here, else this one. @returns the first row that came with it */
  async #showPage(otherwise) {
    const [client, showsAll] = [this.#client, this.#showsAll];
    this.older.disabled = true;
    try {
      const page = await (this.#next ? client.nextPage(this.#next) : client.list(otherwise));
      if (client !== this.#client || showsAll !== this.#showsAll) return undefined; // this was another list
      const [first] = page.notifications.filter(({ id }) => !this.#rows.has(id)).map((one) => this.#insert(one));
      this.#next = page.next;
      this.older.hidden = !page.next;
      this.#drawState();
      return first;
    } catch (error) {
      if (error.status !== 412) this.#say('failed');
      this.#bell.emit('error', { error });
      return undefined;
    } finally {
      this.older.disabled = false;
    }
  }

  // The keyboard; only while the focus is in here

  /** What each key does now. */
  #keys() {
    if (!this.#isOpen) return {};
    const all = this.#inOrder();
    const place = all.findIndex(({ element }) => element.contains(this.#focused));
    const row = all[place];
    const go = (to) => all[Math.min(Math.max(to, 0), all.length - 1)]?.main.focus();
    return {
      Escape: () => { this.#bell.close(); this.#bell.button.focus(); },
      '?': () => this.#help(),
      j: () => go(place + 1), ArrowDown: () => go(place + 1),
      k: () => go(place - 1), ArrowUp: () => go(place - 1),
      r: row && (() => this.#toggle(row)),
      e: row && (() => this.#archive(row)),
    };
  }

  #help() {
    this.keys.hidden = !this.keys.hidden;
    this.help.setAttribute('aria-expanded', String(!this.keys.hidden));
  }
}
