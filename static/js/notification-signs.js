/**
 * Signs of what waits behind the bell, for whoever looks elsewhere: the count in the page's title, another icon, a
 * number on the installed app. Each only where the host asked for it by an attribute. Of several bells in a page the
 * first has these; it gives everything back as it was. The desktop's own notices are in desktop-alerts.js.
 */

import { DesktopAlerts } from './desktop-alerts.js';
import { make } from './elements.js';

const waiting = /** @type {NotificationSigns[]} */ ([]); // the first one shows

export class NotificationSigns {
  #bell;
  #ears = new AbortController();
  #alerts = null;
  #title = document.head.querySelector('title');
  #hostsTitle = ''; // as the host wrote it last
  #ourTitle = /** @type {string | null} */ (null);
  #watch = new MutationObserver(() => this.#drawTitle());
  #icons = /** @type {Array<[Element, Comment]>} */ ([]); // the host's, each with what holds its place
  #icon = /** @type {Element | null} */ (null);

  /** @param {import('./notification-bell.js').NotificationBell} bell */
  constructor(bell) {
    this.#bell = bell;
    waiting.push(this);
    const { signal } = this.#ears;
    bell.addEventListener('count', () => this.#draw(), { signal });
    if (bell.hasAttribute('desktop-alerts')) this.#alerts = new DesktopAlerts(bell, signal);
    this.#draw();
  }

  /** What the panel shows of desktop alerts. @param {import('./types').Say} say @returns {Element[]} */
  offerAlerts(say) { return this.#alerts ? [this.#alerts.offer(say)] : []; }

  stop() {
    this.#ears.abort();
    if (waiting[0] === this) {
      this.#watch.disconnect();
      this.#restoreTitle();
      this.#restoreIcons();
      this.#badge(0);
    }
    waiting.splice(waiting.indexOf(this), 1);
    waiting[0]?.#draw();
  }

  #draw() {
    if (waiting[0] !== this) return;
    this.#drawTitle();
    this.#drawIcon();
    this.#badge(this.#bell.shown);
  }

  #drawTitle() {
    const title = this.#title;
    if (!title || !this.#bell.hasAttribute('title-count')) return;
    this.#watch.disconnect(); // what follows is ours
    if (title.textContent !== this.#ourTitle) this.#hostsTitle = title.textContent ?? '';
    const { shown } = this.#bell;
    this.#restoreTitle();
    if (shown) {
      this.#ourTitle = `(${this.#bell.say('badge', { count: shown })}) ${this.#hostsTitle}`;
      title.textContent = this.#ourTitle;
    }
    this.#watch.observe(title, { childList: true, characterData: true, subtree: true });
  }

  #restoreTitle() {
    if (this.#title && this.#ourTitle !== null && this.#title.textContent === this.#ourTitle) this.#title.textContent = this.#hostsTitle;
    this.#ourTitle = null;
  }

  #drawIcon() {
    const href = this.#bell.getAttribute('unread-icon');
    if (!href || Boolean(this.#bell.shown) === Boolean(this.#icon)) return;
    if (this.#icon) {
      this.#restoreIcons();
      return;
    }
    this.#icons = [...document.head.querySelectorAll('link[rel~="icon"]')].map((link) => {
      const place = new Comment();
      link.replaceWith(place);
      return [link, place];
    });
    this.#icon = make('link', { rel: 'icon', href });
    document.head.append(this.#icon);
  }

  #restoreIcons() {
    this.#icon?.remove();
    this.#icon = null;
    this.#icons.forEach(([link, place]) => place.replaceWith(link));
    this.#icons = [];
  }

  /** The operating system shows it or not; a browser may have the function and refuse it. */
  async #badge(count) {
    if (!this.#bell.hasAttribute('app-badge')) return;
    try {
      await (count ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.());
    } catch {
      // Nobody misses what they never had.
    }
  }
}
