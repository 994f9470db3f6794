/**
 * `<notification-bell>`: a button with a count. The list behind it is in notification-panel.js, loaded when somebody is
 * about to open it. Attributes, and the properties `token` and `words`, are read when the element enters the page.
 */

import { icon, make } from './elements.js';
import { OnePoller } from './one-poller.js';
import { english, speaker, translated } from './words.js';

const BELL = 'M12 3a1.5 1.5 0 0 1 1.5 1.5v.3c2.7.7 4.4 3 4.4 6.2v3.5l1.9 2.9c.3.5 0 1.1-.6 1.1H4.8c-.6 0-.9-.6-.6-1.1'
  + 'l1.9-2.9V11c0-3.2 1.7-5.5 4.4-6.2v-.3A1.5 1.5 0 0 1 12 3zM9.6 20h4.8a2.4 2.4 0 0 1-4.8 0z';

export class NotificationBell extends HTMLElement {
  #poller = null;
  #panel = null;
  #signs = null;
  #loading = null;
  #failedLoads = 0;
  #badge;
  #region;
  #status;

  // What the panel needs as well
  root = this.attachShadow({ mode: 'open' });
  snapshot = null;
  state = null;
  freshAt = null;
  unread = 0;
  unseen = 0;

  // For hosts

  get isOpen() { return this.button?.ariaExpanded === 'true'; }

  /** Asks now. */
  refresh() { this.#poller?.pollNow(); }

  /** For a host whose user signs out: ends the session here too, and empties the bells of all tabs. */
  async signOut() {
    try {
      if (this.usesToken) return;
      const { InboxClient } = await import('./inbox-client.js');
      await new InboxClient({ service: this.address(''), fetch: this.fetch }).signOut();
    } finally {
      this.#poller?.tellOthersToAsk();
      this.#poller?.stop();
      this.#showState('signed out', null);
    }
  }

  async open() {
    if (this.isOpen) return;
    this.button.ariaExpanded = 'true';
    this.#region.hidden = false;
    await this.load();
    if (!this.isOpen) return;
    this.#panel?.open();
    this.emit('open');
  }

  close() {
    if (!this.isOpen) return;
    this.button.ariaExpanded = 'false';
    this.#panel?.close();
    this.#region.hidden = true;
  }

  // For the panel and the signs

  get usesToken() { return Boolean(this.token) || this.hasAttribute('token-url'); }

  get signs() { return this.#signs; }

  /** Whether this page is the one of its browser that polls. */
  get leads() { return this.#poller?.leads; }

  /** What the badge counts. */
  get shown() { return this.getAttribute('badge') === 'unread' ? this.unread : this.unseen; }

  act(action) { return this.#poller ? this.#poller.act(action) : action(); }

  emit(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  count(unread, unseen) {
    const changed = unread !== this.unread || unseen !== this.unseen;
    Object.assign(this, { unread, unseen });
    this.#drawButton();
    if (changed) this.emit('count', { unread, unseen });
  }

  // The life of the element

  async connectedCallback() {
    const poller = this.#poller = new OnePoller({
      url: this.address('notifications/unread'),
      fetch: (input, init) => this.fetch(input, init),
      onSnapshot: (snapshot) => this.#showSnapshot(snapshot),
      onState: (state, freshAt) => this.#showState(state, freshAt),
    });
    const [words, fetch, Signs] = await Promise.all([this.#findWords(), this.#findFetch(), this.#findSigns()]);
    if (poller !== this.#poller) return; // it has left the page again
    this.fetch = fetch;
    this.dictionary = words;
    this.say = speaker(words, words.language);
    this.#build();
    this.#signs = Signs && new Signs(this);
    poller.start();
  }

  disconnectedCallback() {
    this.close();
    this.root.replaceChildren(); // an old button must not open a panel for the next life
    this.#poller.stop();
    this.#panel?.stop();
    this.#signs?.stop();
    this.#poller = this.#panel = this.#loading = this.#signs = this.snapshot = this.state = null;
    this.unread = this.unseen = 0;
  }

  /** An address below the service: where this file came from, unless `src` says otherwise. */
  address(path) {
    const source = this.getAttribute('src');
    return new URL(path, source ? new URL(source.replace(/\/?$/, '/'), document.baseURI) : new URL('../../', import.meta.url)).href;
  }

  async #findWords() {
    const asked = this.closest('[lang]')?.lang.split('-')[0];
    const found = translated.includes(asked) ? await import(`./words/${asked}.js`).catch(() => null) : null;
    return { ...english, ...found?.default, ...this.words };
  }

  async #findFetch() {
    if (!this.usesToken) return (input, init) => fetch(input, init);
    const { fetchWithToken } = await import('./token.js');
    return fetchWithToken({ token: this.token, tokenUrl: this.getAttribute('token-url') });
  }

  async #findSigns() {
    const asked = ['title-count', 'unread-icon', 'app-badge', 'desktop-alerts'].some((name) => this.hasAttribute(name));
    return asked ? (await import('./notification-signs.js').catch(() => null))?.NotificationSigns : null;
  }

  #build() {
    this.#badge = make('span', { part: 'badge', 'aria-hidden': 'true' });
    this.button = make('button', {
      part: 'button', type: 'button', 'aria-expanded': 'false', 'aria-controls': 'panel',
      onclick: () => (this.isOpen ? this.close() : this.open()),
      onpointerenter: () => this.load(),
      onfocus: () => this.load(),
    }, icon(BELL, 'icon'), this.#badge);
    this.#region = make('section', { id: 'panel', part: 'panel', 'aria-labelledby': 'heading', hidden: true },
      make('h2', { id: 'heading', part: 'heading', tabindex: '-1' }, this.say('heading')));
    // Here from the start: a live region that arrives with its text is often not spoken.
    this.#status = make('p', { class: 'spoken', role: 'status' });
    const { language, direction } = this.dictionary;
    const frame = make('div', { lang: language, dir: direction, hidden: true }, this.button, this.#region, this.#status);
    this.root.replaceChildren(frame);
    this.#style('notification-bell').then(() => { frame.hidden = false; });
    this.#drawButton();
  }

  /** Nothing is shown unstyled, unless the style sheet does not come at all. */
  #style(name) {
    return new Promise((done) => {
      const href = new URL(`../css/${name}.css`, import.meta.url);
      this.root.prepend(make('link', { rel: 'stylesheet', href, onload: done, onerror: done }));
    });
  }

  #drawButton() {
    const { shown, state, unread } = this;
    this.#badge.textContent = this.say('badge', { count: shown });
    this.#badge.hidden = !shown;
    this.button.hidden = state === 'gone';
    this.button.ariaLabel = this.say(state === 'signed out' ? 'bellSignedOut' : unread ? 'bellUnread' : 'heading', { count: unread });
  }

  #showSnapshot(snapshot) {
    const before = this.snapshot;
    const isSamePerson = before?.user === snapshot.user;
    // An id is the number of the change that brought it, so no lists need to be compared.
    const arrived = isSamePerson ? snapshot.notifications.filter(({ id }) => id > before.version) : [];
    this.snapshot = snapshot;
    this.count(snapshot.unread_count, snapshot.unseen_count);
    if (before && !isSamePerson) this.#panel?.empty();
    this.#panel?.draw();
    if (!arrived.length) return;
    // Emptied first: to a screen reader two equal texts in a row would be one.
    this.#status.textContent = '';
    setTimeout(() => { this.#status.textContent = this.say('arrived', { count: arrived.length }); }, 100);
    this.emit('new', { notifications: arrived });
  }

  #showState(state, freshAt) {
    Object.assign(this, { state, freshAt });
    if (state === 'signed out') {
      this.snapshot = null;
      this.count(0, 0);
    }
    this.#drawButton();
    if (state === 'gone') this.close();
    this.#panel?.showState();
    if (state !== 'fresh') this.emit('error', { state });
  }

  load() { return this.#loading ??= this.#loadPanel(); }

  async #loadPanel() {
    const poller = this.#poller;
    try {
      // A browser remembers that a module failed to load; under another address it tries again.
      const again = this.#failedLoads ? `?again=${this.#failedLoads}` : '';
      const [{ NotificationPanel }] = await Promise.all([import(`./notification-panel.js${again}`), this.#style('notification-panel')]);
      if (poller && poller === this.#poller) this.#panel = new NotificationPanel(this, this.#region);
    } catch {
      this.#loading = null;
      this.#failedLoads += 1;
      this.#region.replaceChildren(this.#region.firstChild, make('p', {}, this.say('notLoaded')));
    }
  }
}

if (!customElements.get('notification-bell')) customElements.define('notification-bell', NotificationBell);
