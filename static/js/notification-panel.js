/**
 * What the bell opens: the unread list and all that can be done with it. Nothing moves under the reader's pointer or
 * focus: while they are in the list, what is new waits behind a button, and what is gone stays, shown as read.
 */

import { make } from './elements.js';
import { NotificationRow } from './notification-row.js';
import { speaker } from './words.js';
import { english } from './words/panel.js';

const MANY = 10_000; // the service marks as many in one call; then the call is repeated

export class NotificationPanel {
  #bell;
  #region;
  #client;
  #rows = new Map(); // id -> NotificationRow, newest first as in the list
  #version = 0; // of the newest snapshot of which everything is shown
  #next = null; // path of the page after the oldest row shown; null: as far as the snapshot says
  #isOpen = false;
  #ears = new AbortController(); // for listeners that live as long as the panel
  #minute = 0;
  #last = Promise.resolve(); // the change that comes before the next one

  /**
   * @param {import('./notification-bell.js').NotificationBell} bell @param {any} region
   * @param {import('./inbox-client.js').InboxClient} client
   */
  constructor(bell, region, client) {
    this.#bell = bell;
    this.#region = region;
    this.#client = client;
    const { language } = bell.dictionary;
    this.language = language;
    const say = this.say = speaker({ ...english, ...bell.dictionary }, language);
    const button = (name, onclick, attributes = {}) => make('button', { type: 'button', part: name, class: 'quiet', onclick, ...attributes }, say(name));
    this.heading = region.querySelector('h2');
    this.markAll = button('markAll', () => this.#markAll());
    this.trouble = make('div', { 'aria-live': 'polite' });
    this.showNew = make('button', { type: 'button', part: 'show-new', class: 'show-new', hidden: true, onclick: () => this.#showNew() });
    this.list = make('ul', { part: 'list', role: 'list', 'aria-labelledby': 'heading' });
    this.older = button('showOlder', () => this.#showOlder(), { hidden: true });
    this.state = make('div', { class: 'state' });
    this.notice = make('div', { class: 'notice', 'aria-live': 'polite' });
    this.keys = make('dl', { id: 'keys', hidden: true }, ...[['keyMove', 'j k ↓ ↑'], ['keyRead', 'r'], ['keyArchive', 'e'], ['keyHelp', '?'], ['keyClose', 'Esc']]
      .flatMap(([name, keys]) => [make('dt', {}, ...keys.split(' ').map((key) => make('kbd', {}, key))), make('dd', {}, say(name))]));
    this.help = button('keys', () => this.#help(), { 'aria-expanded': 'false', 'aria-controls': 'keys' });
    const inbox = bell.getAttribute('inbox-url') ?? bell.address('');
    this.footer = make('footer', {}, make('a', { href: inbox, part: 'see-all' }, say('seeAll')), this.help, this.keys);
    this.body = make('div', { class: 'scroll' }, this.trouble, this.list, this.older, this.state);
    region.replaceChildren(make('header', { part: 'header' }, this.heading, this.markAll), this.showNew, this.body, this.notice, this.footer);

    const { signal } = this.#ears;
    bell.root.addEventListener('keydown', (event) => this.#key(event), { signal });
    addEventListener('online', () => this.#sendUnsent(), { signal });
    this.showState();
    this.draw();
  }

  // Opening and closing

  open() {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#fillAnew();
    const outside = new AbortController();
    this.closing = outside;
    const { signal } = outside;
    if (this.#region.showPopover) {
      this.#region.setAttribute('popover', 'manual'); // in the top layer nothing of the host's can cover or clip it
      this.#region.showPopover();
      this.#place();
      addEventListener('resize', () => this.#place(), { signal });
      addEventListener('scroll', () => this.#place(), { signal, capture: true, passive: true });
    }
    document.addEventListener('click', (event) => {
      if (event.composedPath().includes(this.#bell)) return;
      this.#bell.close();
      if (document.activeElement === document.body) this.#bell.button.focus();
    }, { signal });
    this.#bell.addEventListener('focusout', ({ relatedTarget }) => {
      if (relatedTarget && relatedTarget !== this.#bell && !this.#bell.root.contains(relatedTarget)) this.#bell.close();
    }, { signal });
    this.#minute = setInterval(() => this.#rows.forEach((row) => row.tick()), 60_000);
  }

  close() {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.closing.abort();
    clearInterval(this.#minute);
    const hadFocus = this.#region.contains(this.#focused);
    if (this.#region.hidePopover) this.#region.hidePopover();
    this.#region.removeAttribute('popover');
    if (hadFocus) this.#bell.button.focus();
    this.notice.replaceChildren();
  }

  stop() {
    this.close();
    this.#ears.abort();
  }

  /** Beside the button, inside the window, on the side where there is room. */
  #place() {
    const { style } = this.#region;
    const button = this.#region.previousElementSibling.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const width = this.#region.offsetWidth;
    const toLeft = getComputedStyle(this.#region).direction === 'rtl' ? button.left : button.right - width;
    style.left = `${Math.max(Math.min(toLeft, room - width - 8), 8)}px`;
    style.top = `${Math.max(button.bottom + 8, 8)}px`;
    style.maxHeight = `${Math.max(innerHeight - Math.max(button.bottom, 0) - 24, 240)}px`;
  }

  // Drawing

  get #focused() { return this.#bell.root.activeElement ?? null; }

  get #isInUse() {
    return this.#isOpen && this.#rows.size > 0
      && (this.list.matches(':hover') || this.list.contains(this.#focused) || this.body.scrollTop > 0);
  }

  /** Another person is signed in. */
  empty() {
    this.#rows.clear();
    this.list.replaceChildren();
    this.#next = null;
    this.#version = 0;
    this.notice.replaceChildren();
  }

  #fillAnew() {
    this.empty();
    this.draw();
  }

  /** Shows the bell's snapshot, as far as that moves nothing under the reader's hands. */
  draw(asked = false) {
    const { snapshot } = this.#bell;
    if (snapshot) {
      const holdBack = !asked && this.#isInUse;
      const { notifications, version } = snapshot;
      const listed = new Set(notifications.map(({ id }) => id));
      const oldest = snapshot.more ? notifications.at(-1)?.id ?? 0 : 0;
      for (const row of [...this.#rows.values()]) {
        if (listed.has(row.id)) { if (!this.#client.unsent.has(row.id)) row.show(false); }
        else if (row.id < oldest || row.touched) continue;
        else if (holdBack) row.show(true);
        else this.#remove(row);
      }
      const missing = notifications.filter(({ id }) => !this.#rows.has(id) && !this.#client.unsent.has(id));
      const waiting = holdBack ? missing.filter(({ id }) => id > this.#version) : [];
      missing.filter((one) => !waiting.includes(one)).forEach((one) => this.#insert(one));
      this.showNew.hidden = !waiting.length;
      this.showNew.textContent = waiting.length ? this.say('showNew', { count: waiting.length }) : '';
      if (!waiting.length) this.#version = version;
      this.older.hidden = !(this.#next ?? (snapshot.more && notifications.length <= this.#rows.size));
      if (this.#isOpen && !waiting.length && this.#bell.unseen && !document.hidden) this.#markSeen();
    }
    this.#drawState();
  }

  /** @param {import('./types').Notification} notification */
  #insert(notification) {
    const { say, language } = this;
    const allowed = [new URL(this.#bell.address('')).origin, ...(this.#bell.getAttribute('image-origins') ?? '').split(/[\s,]+/)];
    const row = new NotificationRow(notification, { say, language, isAllowedPicture: ({ origin }) => allowed.includes(origin) }, {
      follow: (row, leads) => this.#follow(row, Boolean(leads)),
      toggle: (row) => this.#toggle(row),
      archive: (row) => this.#archive(row),
    });
    this.#rows.set(row.id, row);
    const after = [...this.#rows.values()].filter(({ id }) => id < row.id).sort((a, b) => b.id - a.id)[0];
    this.list.insertBefore(row.element, after?.element ?? null);
    return row;
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
    const { state, snapshot } = this.#bell;
    const { say } = this;
    const out = state === 'signed out';
    const say2 = (heading, text, ...more) => [make('h3', {}, say(heading)), text && make('p', {}, say(text)), ...more].filter(Boolean);
    this.markAll.hidden = out || !this.#bell.unread;
    this.list.hidden = !this.#rows.size;
    this.state.hidden = this.#rows.size > 0;
    if (this.state.hidden) return;
    const [name, parts] = out ? ['signed-out', () => say2('signedOutHeading', 'signedOutText', this.#signIn())]
      : snapshot ? ['empty', () => say2('emptyHeading', 'emptyText')]
        : state ? ['error', () => say2('unreachable', '')]
          : ['loading', () => [make('span', { class: 'spoken' }, say('loading')), ...Array.from({ length: 3 }, () => make('span', { class: 'skeleton' }))]];
    if (this.state.dataset.state === name) return;
    this.state.dataset.state = name;
    this.state.replaceChildren(...parts());
  }

  #signIn() {
    const address = this.#bell.getAttribute('sign-in-url') ?? (this.#bell.usesToken ? null : this.#bell.address('login'));
    return address && make('a', { class: 'primary', href: address, part: 'sign-in' }, this.say('signIn'));
  }

  showState() {
    const { state, freshAt } = this.#bell;
    const { say, language } = this;
    if (state === 'signed out') this.empty();
    const time = new Intl.DateTimeFormat(language, { timeStyle: 'short' });
    const hadFocus = this.trouble.contains(this.#focused);
    this.trouble.replaceChildren(...(state !== 'stale' ? [] : [make('div', { class: 'trouble', part: 'trouble' },
      make('p', {}, freshAt === null ? say('unreachable') : say('stale', { time: time.format(freshAt) })),
      make('button', { type: 'button', class: 'quiet', onclick: () => this.#bell.refresh() }, say('tryNow')))]));
    if (hadFocus) (this.trouble.querySelector('button') ?? this.heading).focus();
    if (state === 'fresh') this.#sendUnsent();
    this.#drawState();
  }

  // Acting

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
      if (answer) this.#bell.count(answer.unread_count, answer.unseen_count);
      else this.#say('offline');
      return answer;
    } catch (error) {
      if (error.status === 404) return null; // moved on with its group, or expired: the poll that follows shows it
      back();
      this.#say('failed');
      this.#bell.emit('error', { error });
      return null;
    }
  }

  #say(key, values, ...more) {
    this.notice.replaceChildren(make('div', {}, make('p', {}, this.say(key, values)), ...more));
  }

  #offerUndo(key, values, undos, restore) {
    if (!undos.length) return;
    this.#say(key, values, make('button', {
      type: 'button', class: 'quiet', part: 'undo', onclick: async () => {
        this.notice.replaceChildren();
        this.heading.focus();
        restore();
        for (const number of undos.reverse()) await this.#do(() => this.#client.undo(number));
      },
    }, this.say('undo')));
  }

  #markSeen() {
    this.#bell.count(this.#bell.unread, 0);
    const through = this.#version;
    this.#inTurn(() => this.#client.markSeen({ through })).catch(() => {}); // the poll that follows tells
  }

  #follow(row, leaves) {
    if (!row.read) this.#read(row, leaves);
  }

  async #read(row, keepalive = false) {
    row.touched = true;
    row.show(true);
    this.#bell.count(Math.max(this.#bell.unread - 1, 0), this.#bell.unseen);
    this.#bell.emit('read', { ids: [row.id] });
    await this.#do(() => this.#client.markReadSoon(row.id, { keepalive }), () => row.show(false), { keepalive });
  }

  async #toggle(row) {
    if (!row.read) return this.#read(row);
    row.show(false);
    row.touched = false;
    return this.#do(() => this.#client.markUnread(row.id), () => row.show(true));
  }

  async #archive(row) {
    const answer = await this.#do(() => this.#client.archiveMany({ ids: [row.id] }));
    if (!answer) return;
    this.#remove(row);
    this.#offerUndo('archived', {}, answer.undo ? [answer.undo] : [], () => {});
  }

  async #markAll() {
    const rows = this.#inOrder().filter((row) => !row.read && row.id <= this.#version);
    const unread = () => rows.forEach((row) => { row.touched = false; row.show(false); });
    const hadFocus = this.#focused === this.markAll;
    rows.forEach((row) => { row.touched = true; row.show(true); });
    const undos = [];
    let count = 0;
    for (;;) {
      const answer = await this.#do(() => this.#client.markManyRead({ through: this.#version }), unread);
      if (answer?.undo) undos.push(answer.undo);
      count += answer?.changed ?? 0;
      if ((answer?.changed ?? 0) < MANY) break;
    }
    if (!count) return;
    this.#drawState();
    if (hadFocus && this.markAll.hidden) this.heading.focus();
    this.#bell.emit('read', { ids: rows.map(({ id }) => id) });
    this.#offerUndo('allRead', { count }, undos, unread);
  }

  async #sendUnsent() {
    if (this.#client.unsent.size) await this.#do(() => this.#client.sendUnsent());
  }

  #showNew() {
    this.draw(true);
    this.body.scrollTop = 0;
    this.#inOrder()[0]?.main.focus();
  }

  async #showOlder() {
    const last = this.#inOrder().at(-1);
    this.older.disabled = true;
    try {
      const page = await (this.#next ? this.#client.nextPage(this.#next) : this.#client.list({ state: 'unread', before: last?.id }));
      const [first] = page.notifications.filter(({ id }) => !this.#rows.has(id)).map((one) => this.#insert(one));
      this.#next = page.next;
      this.older.hidden = !page.next;
      first?.main.focus();
    } catch (error) {
      this.#say('failed');
      this.#bell.emit('error', { error });
    }
    this.older.disabled = false;
  }

  // The keyboard; only while the focus is in here

  #key(event) {
    if (!this.#isOpen || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = this.#inOrder();
    const place = all.findIndex(({ element }) => element.contains(this.#focused));
    const row = all[place];
    const go = (to) => all[Math.min(Math.max(to, 0), all.length - 1)]?.main.focus();
    const keys = {
      Escape: () => { this.#bell.close(); this.#bell.button.focus(); },
      '?': () => this.#help(),
      j: () => go(place + 1), ArrowDown: () => go(place + 1),
      k: () => go(place - 1), ArrowUp: () => go(place - 1),
      r: row && (() => this.#toggle(row)),
      e: row && (() => this.#archive(row)),
    };
    const action = Object.hasOwn(keys, event.key) && keys[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  #help() {
    this.keys.hidden = !this.keys.hidden;
    this.help.setAttribute('aria-expanded', String(!this.keys.hidden));
  }
}
