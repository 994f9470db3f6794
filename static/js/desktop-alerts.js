/**
 * Notices of the reader's desktop, for those who said that they want them: asked only after a click on a button that
 * says what for, and never again after a no. One page of a browser shows them, and only while nobody looks at it.
 */

import { make } from './elements.js';

const CHOICE = 'belfry desktop-alerts'; // 'on' or 'no'; without it nobody has been asked
const MOST = 3; // at once; more are told as a number

/** What the browser keeps, where it keeps anything. */
const kept = {
  read(/** @type {string} */ key) {
    try { return localStorage.getItem(key); } catch { return null; }
  },
  write(/** @type {string} */ key, /** @type {string} */ value) {
    try { localStorage.setItem(key, value); } catch { /* then it holds for this moment */ }
  },
};

export class DesktopAlerts {
  #bell;
  #box = make('div', { class: 'offer' });

  /** @param {import('./notification-bell.js').NotificationBell} bell @param {AbortSignal} signal */
  constructor(bell, signal) {
    this.#bell = bell;
    bell.addEventListener('new', (/** @type {any} */ { detail }) => this.#tell(detail.notifications), { signal });
  }

  /** The question, or later the switch. @param {import('./types').Say} say */
  offer(say) {
    const button = (/** @type {string} */ name, /** @type {() => void} */ onclick) =>
      make('button', { type: 'button', class: 'quiet', title: say('alertsWhy'), onclick }, say(name));
    const choose = async (/** @type {string} */ choice) => {
      const isGranted = choice === 'no' || (await Notification.requestPermission()) === 'granted';
      kept.write(CHOICE, isGranted ? choice : 'no');
      this.offer(say);
      /** @type {HTMLElement | null} */ (this.#box.querySelector('button'))?.focus();
    };
    const enable = () => button('alertsEnable', () => choose('on'));
    const choice = kept.read(CHOICE);
    const isImpossible = !('Notification' in globalThis) || Notification.permission === 'denied';
    this.#box.replaceChildren(...(isImpossible ? []
      : this.#isOn ? [button('alertsDisable', () => choose('no'))]
        : choice ? [enable()]
          : [make('p', {}, say('alertsWhy')), enable(), button('alertsDecline', () => choose('no'))]));
    return this.#box;
  }

  get #isOn() {
    return 'Notification' in globalThis && Notification.permission === 'granted' && kept.read(CHOICE) === 'on';
  }

  /** @param {import('./types').Notification[]} arrived */
  #tell(arrived) {
    const isLookedAt = !document.hidden && document.hasFocus();
    if (!this.#isOn || !this.#bell.leads || isLookedAt) return;
    // Another page may have led, and told, a moment ago.
    const key = `belfry told ${this.#bell.address('')} ${this.#bell.snapshot.user}`;
    const fresh = arrived.filter(({ id }) => id > Number(kept.read(key)));
    if (!fresh.length) return;
    kept.write(key, String(Math.max(...fresh.map(({ id }) => id))));
    if (fresh.length > MOST) this.#show(this.#bell.say('arrived', { count: fresh.length }), { tag: key });
    else fresh.forEach(({ id, title, body }) => this.#show(title, { body, tag: `${key} ${id}` }));
  }

  /** @param {string} title @param {NotificationOptions} options */
  #show(title, options) {
    try {
      const notice = new Notification(title, { ...options, dir: 'auto' });
      notice.addEventListener('click', () => {
        window.focus();
        notice.close();
        this.#bell.open();
      });
    } catch {
      // Some phones have the name and leave the rest to service workers.
    }
  }
}
