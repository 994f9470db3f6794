/** Every string of the bell, in English, and how a string with numbers in it is put together. */

export const english = {
  language: 'en',
  direction: 'ltr',

  bell: 'Notifications',
  bellUnread: { one: 'Notifications, {count} unread', other: 'Notifications, {count} unread' },
  badge: '{count}',
  bellSignedOut: 'Notifications, signed out',
  arrived: { one: '{count} new notification', other: '{count} new notifications' },
  notLoaded: 'This could not be loaded. Close it and try again.',

  heading: 'Notifications',
  markAll: 'Mark all as read',
  showNew: { one: 'Show {count} new', other: 'Show {count} new' },
  showOlder: 'Show older',
  seeAll: 'See all notifications',
  unread: 'Unread',
  important: 'Important',
  earlier: { one: 'and {count} earlier', other: 'and {count} earlier' },
  markRead: 'Mark as read: {title}',
  markUnread: 'Mark as unread: {title}',
  archive: 'Archive: {title}',
  undo: 'Undo',
  archived: 'Archived.',
  allRead: { one: '{count} marked as read.', other: '{count} marked as read.' },

  loading: 'Loading…',
  emptyHeading: 'You’re all caught up',
  emptyText: 'What is new will show up here.',
  stale: 'Not updated since {time}. Trying again by itself.',
  unreachable: 'Notifications can’t be reached right now.',
  tryNow: 'Try now',
  failed: 'That did not work. Please try again.',
  offline: 'You are offline. It will be sent when you are back.',
  signedOutHeading: 'You are signed out',
  signedOutText: 'Sign in again to see your notifications.',
  signIn: 'Sign in',

  keys: 'Keyboard shortcuts',
  keyMove: 'Next, previous',
  keyRead: 'Read or unread',
  keyArchive: 'Archive',
  keyHelp: 'These shortcuts',
  keyClose: 'Close',
};

/** @typedef {Record<keyof typeof english, string | Record<string, string>>} Words */

/** The languages that have a file in words/. */
export const translated = ['ar', 'de'];

/**
 * Gives a function that says things: `say('arrived', { count: 2 })`.
 * @param {Partial<Words>} words what is missing is said in English
 * @param {string} language for numbers and plurals
 * @returns {(key: keyof Words, values?: Record<string, string | number>) => string}
 */
export function speaker(words, language) {
  const plural = new Intl.PluralRules(language);
  const number = new Intl.NumberFormat(language);
  return (key, values = {}) => {
    const found = words[key] ?? english[key];
    const phrase = typeof found === 'string' ? found : found[plural.select(Number(values.count))] ?? found.other;
    return phrase.replace(/\{(\w+)\}/g, (_, name) => {
      const value = values[name];
      return typeof value !== 'number' ? value : value > 99 ? `${number.format(99)}+` : number.format(value);
    });
  };
}
