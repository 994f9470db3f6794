/**
 * `<notification-bell>`: a button with a count, and what it opens. The button and the polling are here; the list
 * behind the button is in notification-panel.js, loaded when somebody is about to open it.
 */

import { icon, make } from './elements.js';
import { OnePoller } from './one-poller.js';
import { english, speaker, translated } from './words.js';

const BELL = 'M12 3a1.5 1.5 0 0 1 1.5 1.5v.3c2.7.7 4.4 3 4.4 6.2v3.5l1.9 2.9c.3.5 0 1.1-.6 1.1H4.8c-.6 0-.9-.6-.6-1.1'
  + 'l1.9-2.9V11c0-3.2 1.7-5.5 4.4-6.2v-.3A1.5 1.5 0 0 1 12 3zM9.6 20h4.8a2.4 2.4 0 0 1-4.8 0z';

export class NotificationBell extends HTMLElement {
  static observedAttributes = ['src', 'lang', 'token-url', 'badge'];

  #root = this.attachShadow({ mode: 'open' });
  #poller = null;
  #panel = null;
  #words = {};
  #token = null;
  #start = 0; // counts the starts, so that one overtaken by a stop or another start goes no further
  #tries = 0;
  #version = null;

  // Drawn by #build()
  #button = null;
  #badge = null;
  #region = null;
  #status = null;

  // What the panel, when it is loaded, reads as well
  snapshot = null;
  state = null;
  freshAt = null;
  unread = 0;
  unseen = 0;
  language = 'en';
  say = speaker(english, 'en');
  service = new URL('../../', import.meta.url);
  fetch = (input, init) => globalThis.fetch(input, { credentials: 'include', ...init });

  // For hosts

  /** Gives a token of the host's; for bells on a foreign site. Set it before the bell is put into the page. */
  get token() { return this.#token; }
  set token(token) { this.#token = token; this.#restart(); }

  /** Strings of the host's own, in place of those in words.js. */
  get words() { return this.#words; }
  set words(words) { this.#words = words; this.#restart(); }

  get isOpen() { return this.#button?.getAttribute('aria-expanded') === 'true'; }

  /** Asks now. */
  refresh() { this.#poller?.pollNow(); }

  /** For a host whose user signs out: ends the session here too, and empties this bell and those in other tabs. */
  async signOut() {
    const poller = this.#poller;
    try {
      if (!this.usesToken) await (await this.#client()).signOut();
    } finally {
      poller?.tellOthersToAsk();
      poller?.stop();
      this.#showState('signed out', null);
    }
  }

  async open() {
    if (this.isOpen) return;
    this.#button.setAttribute('aria-expanded', 'true');
    this.#region.hidden = false;
    const panel = await this.#load();
    if (this.isOpen) panel?.open();
    this.emit('open');
  }

  close() {
    if (!this.isOpen) return;
    this.#button.setAttribute('aria-expanded', 'false');
    this.#panel?.close();
    this.#region.hidden = true;
  }

  // For the panel

  get usesToken() { return Boolean(this.#token) || this.hasAttribute('token-url'); }

  /** @template T @param {() => Promise<T>} action @returns {Promise<T>} */
  act(action) { return this.#poller ? this.#poller.act(action) : action(); }

  /** @param {string} type @param {object} [detail] */
  emit(type, detail = {}) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  focusButton() { this.#button.focus(); }

  /** @param {number} unread @param {number} unseen */
  count(unread, unseen) {
    const changed = unread !== this.unread || unseen !== this.unseen;
    this.unread = unread;
    this.unseen = unseen;
    this.#drawButton();
    if (changed) this.emit('count', { unread, unseen });
  }

  // The life of the element

  connectedCallback() {
    // Set before this file was loaded, these were plain properties of a plain element.
    for (const name of ['token', 'words']) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    this.#begin();
  }

  disconnectedCallback() { this.#end(); }

  attributeChangedCallback() { this.#restart(); }

  #restart() {
    if (!this.#poller) return;
    this.#end();
    this.#begin();
  }

  async #begin() {
    const start = ++this.#start;
    const source = this.getAttribute('src');
    if (source) this.service = new URL(source.endsWith('/') ? source : `${source}/`, document.baseURI);
    const [words, fetch] = await Promise.all([this.#findWords(), this.#findFetch()]);
    if (start !== this.#start || !this.isConnected) return;
    this.language = words.language ?? 'en';
    this.say = speaker(words, this.language);
    this.#build(words.direction ?? 'ltr');
    if (fetch) this.fetch = fetch;
    this.#poller = new OnePoller({
      url: new URL('notifications/unread', this.service).href,
      fetch: (input, init) => this.fetch(input, init),
      onSnapshot: (snapshot) => this.#showSnapshot(snapshot),
      onState: (state, freshAt) => this.#showState(state, freshAt),
    });
    this.#poller.start();
  }

  #end() {
    this.#start += 1;
    this.close();
    this.#poller?.stop();
    this.#poller = null;
    this.#panel?.stop();
    this.#panel = null;
    this.#forget();
    this.state = null;
    this.#root.replaceChildren();
    this.#button = null;
  }

  #forget() {
    this.snapshot = null;
    this.#version = null;
    this.count(0, 0);
  }

  async #findWords() {
    const asked = this.closest('[lang]')?.lang.split('-')[0] ?? 'en';
    const found = translated.includes(asked) ? await import(`./words/${asked}.js`).catch(() => null) : null;
    return { ...english, ...found?.default, ...this.#words };
  }

  async #findFetch() {
    if (!this.usesToken) return null;
    const { fetchWithToken } = await import('./token.js');
    const address = this.getAttribute('token-url');
    return fetchWithToken({ token: this.#token ?? undefined, tokenUrl: address ? new URL(address, document.baseURI) : '' });
  }

  #build(direction) {
    const style = make('link', { rel: 'stylesheet', href: new URL('../css/notification-bell.css', import.meta.url) });
    this.#badge = make('span', { part: 'badge', 'aria-hidden': 'true' });
    this.#button = make('button', {
      part: 'button', type: 'button', 'aria-expanded': 'false', 'aria-controls': 'panel',
      onclick: () => (this.isOpen ? this.close() : this.open()),
      onpointerenter: () => this.#load(),
      onfocus: () => this.#load(),
    }, icon(BELL, 'icon'), this.#badge);
    this.#region = make('section', { id: 'panel', part: 'panel', 'aria-labelledby': 'heading', hidden: true },
      make('h2', { id: 'heading', part: 'heading', tabindex: '-1' }, this.say('heading')));
    // Here from the start: a live region that arrives together with its text is often not spoken.
    this.#status = make('p', { class: 'spoken', role: 'status' });
    const frame = make('div', { class: 'frame', lang: this.language, dir: direction, hidden: true },
      this.#button, this.#region, this.#status);
    // Nothing is shown unstyled; without its style sheet a bell that works is better than none.
    for (const event of ['load', 'error']) style.addEventListener(event, () => { frame.hidden = false; });
    this.#root.replaceChildren(style, frame);
    this.#drawButton();
  }

  #drawButton() {
    if (!this.#button) return;
    const shown = this.getAttribute('badge') === 'unread' ? this.unread : this.unseen;
    this.#badge.textContent = shown ? this.say('badge', { count: shown }) : '';
    this.#badge.hidden = !shown;
    const name = this.state === 'signed out' ? this.say('bellSignedOut')
      : this.unread ? this.say('bellUnread', { count: this.unread }) : this.say('bell');
    this.#button.setAttribute('aria-label', name);
  }

  #showSnapshot(snapshot) {
    const before = this.snapshot?.user === snapshot.user ? this.#version : null;
    // A notification's id is the number of the change that brought it, so what is new needs no comparing of lists.
    const arrived = before === null ? [] : snapshot.notifications.filter(({ id }) => id > before);
    const another = this.snapshot && this.snapshot.user !== snapshot.user;
    this.snapshot = snapshot;
    this.#version = snapshot.version;
    this.count(snapshot.unread_count, snapshot.unseen_count);
    if (another) this.#panel?.empty();
    this.#panel?.draw();
    if (!arrived.length) return;
    // Emptied first, and filled a moment later: to a screen reader two equal texts in a row would be one.
    this.#status.textContent = '';
    setTimeout(() => { this.#status.textContent = this.say('arrived', { count: arrived.length }); }, 100);
    this.emit('new', { notifications: arrived });
  }

  #showState(state, freshAt) {
    this.state = state;
    this.freshAt = freshAt;
    if (state === 'signed out') this.#forget();
    this.#drawButton();
    this.#panel?.showState();
    if (state !== 'fresh') this.emit('error', { state });
  }

  // What is loaded when it is first needed

  async #client() {
    const { InboxClient } = await import('./inbox-client.js');
    return new InboxClient({ service: this.service, fetch: this.fetch });
  }

  async #load() {
    const start = this.#start;
    try {
      // A browser remembers a module that failed to load; under another address it tries again.
      const again = this.#tries ? `?again=${this.#tries}` : '';
      const [{ NotificationPanel }, client] = await Promise.all([import(`./notification-panel.js${again}`), this.#client()]);
      if (start === this.#start) this.#panel ??= new NotificationPanel(this, this.#region, client);
    } catch {
      this.#tries += 1;
      if (start === this.#start) this.#region.replaceChildren(this.#region.firstChild, make('p', {}, this.say('notLoaded')));
    }
    return this.#panel;
  }
}

if (!customElements.get('notification-bell')) customElements.define('notification-bell', NotificationBell);
