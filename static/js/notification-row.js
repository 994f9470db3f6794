/** One notification as it stands in the list. */

import { icon, make } from './elements.js';
import { initials, pointTo, safeBody, webAddress } from './safe-text.js';

const CHECK = 'M9.8 17.7 4.4 12.3l1.5-1.5 3.9 3.9 8.3-8.9 1.5 1.4z';
const DOT = 'M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10z';
const BOX = 'M4 4h16a1 1 0 0 1 1 1v3a1 1 0 0 1-1 1v9.5a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5V9a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zm1 2v1h14V6zm1 3v9h12V9zm3.5 2h5v2h-5z';

export class NotificationRow {
  read = false;
  #toggle;
  #unread;

  /**
   * @param {import('./types').Notification} notification
   * @param {{ say: import('./types').Say, language: string, isAllowedPicture: (url: URL) => boolean }} how
   * @param {{ follow(row: NotificationRow, leaves: boolean): void, toggle(row: NotificationRow): void,
   *   archive(row: NotificationRow): void }} actions
   */
  constructor(notification, { say, language, isAllowedPicture }, actions) {
    const { id, type, title, url, body_html, actor, priority, count, created_at, read_at } = notification;
    this.id = id;
    this.type = type;
    this.touched = read_at !== null; // such a row stays although no poll lists it
    this.say = say;
    this.title = title;
    this.language = language;
    this.time = make('time', { datetime: created_at, part: 'time' });
    this.main = webAddress(url)
      ? pointTo(make('a', { part: 'title', dir: 'auto' }, title), url)
      : make('button', { type: 'button', part: 'title', dir: 'auto' }, title);
    // A middle click opens another tab and is an auxclick; it reads the notification as well.
    for (const event of ['click', 'auxclick']) {
      this.main.addEventListener(event, ({ button }) => { if (button < 2) actions.follow(this, this.main.href); });
    }
    this.#unread = make('span', { class: 'spoken' }, `${say('unread')} `);
    this.#toggle = make('button', { type: 'button', class: 'round', onclick: () => actions.toggle(this) });
    const text = make('div', { class: 'text' },
      make('div', { class: 'title' }, this.#unread, this.main),
      body_html ? make('div', { class: 'body', part: 'body', dir: 'auto' }, safeBody(body_html)) : null,
      make('p', { class: 'facts', part: 'meta' },
        priority === 'high' ? make('span', { class: 'important' }, say('important')) : null,
        actor ? pointTo(make(webAddress(actor.url) ? 'a' : 'span', { dir: 'auto' }, actor.name), actor.url) : null,
        this.time,
        count > 1 ? make('span', {}, say('earlier', { count: count - 1 })) : null));
    const archive = say('archive', { title });
    this.element = make('li', { part: 'item', class: `item ${priority}` },
      this.#face(actor, isAllowedPicture), text,
      make('div', { class: 'actions' }, this.#toggle,
        make('button', { type: 'button', class: 'round', 'aria-label': archive, title: archive, onclick: () => actions.archive(this) }, icon(BOX))));
    this.show(read_at !== null);
    this.tick();
  }

  /** As read, or as unread. */
  show(/** @type {boolean} */ read) {
    this.read = read;
    this.element.classList.toggle('read', read);
    this.#unread.hidden = read;
    this.#toggle.title = this.#toggle.ariaLabel = this.say(read ? 'markUnread' : 'markRead', { title: this.title });
    this.#toggle.replaceChildren(icon(read ? DOT : CHECK));
  }

  /** Says anew how long ago it was. */
  tick() {
    const at = new Date(this.time.dateTime);
    const full = new Intl.DateTimeFormat(this.language, { dateStyle: 'medium', timeStyle: 'short' }).format(at);
    const relative = new Intl.RelativeTimeFormat(this.language, { numeric: 'auto', style: 'short' });
    const minutes = Math.min(Math.round((at.getTime() - Date.now()) / 60_000), 0);
    const [size, unit] = minutes > -1 ? [1, 'second'] : minutes > -60 ? [1, 'minute'] : minutes > -1440 ? [60, 'hour'] : [1440, 'day'];
    this.time.title = full;
    this.time.textContent = minutes > -7 * 1440 ? relative.format(Math.round(minutes / size), unit) : full;
  }

  /** Who did it: a picture where that is allowed and comes, else the letters of the name. */
  #face(actor, isAllowedPicture) {
    const face = make('span', { class: 'face', part: 'face', 'aria-hidden': 'true' }, initials(actor?.name ?? '') || icon(DOT));
    const address = webAddress(actor?.image ?? null);
    if (address && isAllowedPicture(address)) {
      const picture = make('img', { alt: '', loading: 'lazy', referrerpolicy: 'no-referrer', src: address.href });
      picture.addEventListener('load', () => face.replaceChildren(picture));
      picture.addEventListener('error', () => picture.remove());
      face.append(picture); // a lazy picture loads only where it would be seen
    }
    return face;
  }
}
