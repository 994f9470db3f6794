/** What the bell says, in English, and how it is said. What only the panel says is in words/panel.js. */

export const english = {
  language: 'en',
  direction: 'ltr',

  heading: 'Notifications',
  badge: '{count}',
  bellUnread: 'Notifications, {count} unread',
  bellSignedOut: 'Notifications, signed out',
  arrived: { one: '{count} new notification', other: '{count} new notifications' },
  notLoaded: 'This could not be loaded. Close it and try again.',
};

/** The languages that have a file in words/. */
export const translated = ['ar', 'de'];

/**
 * Gives a function that says things: `say('arrived', { count: 2 })`.
 * @param {import('./types').Words} words @param {string} language @returns {import('./types').Say}
 */
export function speaker(words, language) {
  const plural = new Intl.PluralRules(language);
  const number = new Intl.NumberFormat(language);
  return (key, values = {}) => {
    const found = words[key];
    const phrase = typeof found === 'string' ? found : found[plural.select(Number(values.count))] ?? found.other;
    return phrase.replace(/\{(\w+)\}/g, (_, name) => {
      const value = values[name];
      return typeof value !== 'number' ? value : value > 99 ? `${number.format(99)}+` : number.format(value);
    });
  };
}
