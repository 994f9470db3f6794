/** What the panel shows where there is no list, or beside an old one. */

import { make } from './elements.js';

/** @typedef {import('./notification-bell.js').NotificationBell} Bell @typedef {import('./types').Say} Say */

/**
 * Of the bell's four states the one that has no list: its name, and what makes its parts.
 * @param {Bell} bell @param {Say} say @returns {[string, () => Element[]]}
 */
export function emptyState(bell, say) {
  const { state, snapshot } = bell;
  const parts = (heading, text, ...more) => [make('h3', {}, say(heading)), text && make('p', {}, say(text)), ...more].filter(Boolean);
  if (state === 'signed out') return ['signed-out', () => parts('signedOutHeading', 'signedOutText', signIn(bell, say))];
  if (snapshot) return ['empty', () => parts('emptyHeading', 'emptyText', preferences(bell, say, 'choose'))];
  if (state) return ['error', () => parts('unreachable', '')];
  return ['loading', () => [
    make('span', { class: 'spoken' }, say('loading')),
    ...Array.from({ length: 3 }, () => make('span', { class: 'skeleton' })),
  ]];
}

/** A link to where the reader chooses what to hear of: a page that knows its reader by the session only. */
export function preferences(/** @type {Bell} */ bell, /** @type {Say} */ say, /** @type {string} */ part) {
  const href = bell.getAttribute('preferences-url') ?? (bell.usesToken ? null : bell.address('types'));
  return href && make('a', { href, part }, say(part));
}

function signIn(/** @type {Bell} */ bell, /** @type {Say} */ say) {
  const href = bell.getAttribute('sign-in-url') ?? (bell.usesToken ? null : bell.address('login'));
  return href && make('a', { class: 'primary', href, part: 'sign-in' }, say('signIn'));
}

/** Since when the list is not known to be true, and a way to try again. */
export function trouble(/** @type {any} */ bell, /** @type {Say} */ say, /** @type {string} */ language) {
  const time = new Intl.DateTimeFormat(language, { timeStyle: 'short' });
  return make('div', { class: 'trouble', part: 'trouble' },
    make('p', {}, bell.freshAt === null ? say('unreachable') : say('stale', { time: time.format(bell.freshAt) })),
    make('button', { type: 'button', class: 'quiet', onclick: () => bell.refresh() }, say('tryNow')));
}
