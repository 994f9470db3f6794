/** The panel's keys, which mean something only while the focus is in it, and the list that tells them. */

import { make } from './elements.js';

const TOLD = { keyMove: 'j k ↓ ↑', keyRead: 'r', keyArchive: 'e', keyHelp: '?', keyClose: 'Esc' };

/** @param {ShadowRoot} root @param {AbortSignal} signal @param {(key: string) => (() => void) | undefined} find */
export function listenToKeys(root, signal, find) {
  root.addEventListener('keydown', (event) => {
    const { key, ctrlKey, metaKey, altKey } = /** @type {KeyboardEvent} */ (event);
    const action = !ctrlKey && !metaKey && !altKey && find(key);
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }, { signal });
}

/** @param {import('./types').Say} say */
export function shortcuts(say) {
  return make('dl', { id: 'keys', hidden: true }, ...Object.entries(TOLD).flatMap(([name, keys]) => [
    make('dt', {}, ...keys.split(' ').map((key) => make('kbd', {}, key))),
    make('dd', {}, say(name)),
  ]));
}
