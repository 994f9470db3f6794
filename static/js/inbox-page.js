/**
 * Keeps the inbox page up to date and lets it act without a reload. The page is complete without this: every button
 * belongs to a form that works on its own.
 *
 * The server draws, here as there: what a form answers with and what a poll makes necessary is the page itself, and
 * this file only moves its parts into place. So no notification's text is ever made into HTML by a script, and a
 * button that was drawn for one person cannot act for another, since the form says for whom it was.
 */

import { OnePoller } from './one-poller.js';
import { timing } from './poller.js';

const words = {
  title: 'Notifications · Belfry',
  arrived: (/** @type {number} */ count) => (count === 1 ? '1 new notification' : `${count} new notifications`),
  showNew: (/** @type {number} */ count) => `Show ${count} new`,
  stale: (/** @type {string} */ since) => `Not updated since ${since}. Trying again by itself.`,
  failed: 'That could not be done. Please try again.',
  tryNow: 'Try now',
  trying: 'Trying…',
};

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const page = $('inbox');
const list = $('list');
const heading = $('heading');
const through = /** @type {HTMLInputElement} */ ($('through'));
const act = /** @type {HTMLFormElement} */ ($('act'));
const help = /** @type {HTMLDialogElement} */ ($('help'));
const language = document.documentElement.lang;

/** The parts that are taken over whole from a newer page. */
const PARTS = ['count', 'filters', 'many', 'foot'];
const DONE = 'done'; // what has been done, and its undo: that stays until something else is done

/** What the server made of a row or a part, before this file touched it. @type {WeakMap<Element, Node>} */
const drawn = new WeakMap();

let latest = page.dataset; // of the newest page that came; its list may still wait behind "Show 3 new"
let waiting = ''; // that page, while it waits
let unreadCount = Number(page.dataset.unreadCount);

const rows = () => /** @type {HTMLElement[]} */ ([...list.children]);
const focused = () => /** @type {HTMLElement | null} */ (document.activeElement);
const rowOf = (/** @type {EventTarget | null} */ target) =>
  /** @type {HTMLElement | null} */ (target instanceof Element ? target.closest('.row') : null);

const poller = new OnePoller({
  url: page.dataset.unreadUrl ?? '',
  user: page.dataset.user,
  etag: page.dataset.etag,
  interval: Number(page.dataset.pollInterval) * 1000 || timing.interval,
  onSnapshot: compare,
  onState: showState,
});

// A poll says whether the page is still true

let known = /** @type {import('./types').Snapshot | null} */ (null);

/** @param {import('./types').Snapshot} snapshot */
function compare(snapshot) {
  if (snapshot.user !== page.dataset.user) return startOver();
  if (snapshot.unread_count > unreadCount) announce(snapshot.unread_count - unreadCount);
  unreadCount = snapshot.unread_count;
  known = snapshot;
  drawTitle();
  catchUp();
}

/** A page that nobody sees counts, and draws when it is looked at. */
function catchUp() {
  const isTrue = known?.version === Number(latest.version) && known.unread_count === Number(latest.unreadCount);
  if (known && !isTrue && !document.hidden) refresh();
}

/** Somebody else has signed in with this browser: the whole page is about another person now. */
function startOver() {
  stop();
  location.replace(page.dataset.address ?? '');
}

function announce(/** @type {number} */ count) {
  // Emptied first, and filled a moment later: to a screen reader two equal texts in a row would be one.
  $('announcement').textContent = '';
  setTimeout(() => { $('announcement').textContent = words.arrived(count); }, 100);
}

let asking = /** @type {AbortController | null} */ (null);
let retry = 0;

async function refresh() {
  asking?.abort();
  clearTimeout(retry);
  const mine = asking = new AbortController();
  try {
    const html = await load(page.dataset.address ?? '', { signal: AbortSignal.any([mine.signal, deadline()]) });
    // What a button has changed since then is not in it; the poll that follows the button asks again.
    if (asking === mine && !acting) apply(html);
  } catch {
    if (asking !== mine) return;
    showState('stale', null);
    retry = setTimeout(refresh, Number(page.dataset.pollInterval) * 1000 || timing.interval);
  }
}

const deadline = () => AbortSignal.timeout(timing.timeout);

/** @param {string} address @param {RequestInit} init @returns {Promise<string>} the page that it leads to */
async function load(address, init) {
  const response = await fetch(address, { ...init, headers: { Accept: 'text/html' }, cache: 'no-store' });
  if (!response.ok) throw new Error(`${address} answered ${response.status}`);
  return response.text();
}

// A newer page takes the place of what is shown

/** @param {string} html @param {{ showAll?: boolean, acted?: boolean }} [how] */
function apply(html, { showAll = !isBusyInList(), acted = false } = {}) {
  if (!list.isConnected) return;
  const fresh = new DOMParser().parseFromString(html, 'text/html').getElementById('inbox');
  if (!fresh) return showState('signed out', null); // the sign-in page
  if (fresh.dataset.user !== page.dataset.user) return startOver();

  const part = (/** @type {string} */ id) => /** @type {HTMLElement} */ (fresh.querySelector(`#${id}`));
  const before = Number(through.value);
  const isNew = (/** @type {Element} */ row) => Number(row.id.slice(1)) > before;
  const wanted = /** @type {HTMLElement[]} */ ([...part('list').children]);
  const held = showAll || !('firstPage' in fresh.dataset) ? [] : wanted.filter(isNew);

  [...PARTS, ...(acted ? [DONE] : [])].forEach((id) => replacePart($(id), part(id)));
  drawList(wanted.filter((row) => !held.includes(row)), isNew);
  // A button for many reaches as far as its reader has been shown.
  if (!held.length) through.value = fresh.dataset.version ?? '';
  waiting = held.length ? html : '';
  latest = fresh.dataset;
  unreadCount = Number(latest.unreadCount); // without a word: what rose by the reader's own hand is not new
  $('show-new').hidden = !held.length;
  $('show-new').textContent = words.showNew(held.length);
  drawTitle();
  showTrouble({ polling: null });
  markSeen();
}

/** Whoever has the focus or the pointer in the list, or has scrolled into it, must not have it move under them. */
function isBusyInList() {
  const hovers = matchMedia('(hover: hover)').matches && list.matches(':hover');
  return hovers || list.contains(focused()) || list.getBoundingClientRect().top < 0;
}

/** @param {HTMLElement} old @param {HTMLElement} fresh */
function replacePart(old, fresh) {
  const made = fresh.cloneNode(true);
  if (drawn.get(old)?.isEqualNode(made)) return;
  const had = old.contains(focused()) ? focused() : null;
  old.replaceChildren(...fresh.childNodes);
  drawn.set(old, made);
  if (!had) return;
  const same = [...old.querySelectorAll(had.localName)].find((it) => it.textContent === had.textContent);
  (/** @type {HTMLElement | undefined} */ (same) ?? heading).focus();
}

/** @param {HTMLElement[]} wanted @param {(row: Element) => boolean} isNew */
function drawList(wanted, isNew) {
  const known = new Map(rows().map((row) => [row.id, row]));
  const next = wanted.map((row) => {
    const old = known.get(row.id);
    const made = face(row);
    if (old && drawn.get(old)?.isEqualNode(made)) return old; // opened text, focus and all
    drawn.set(row, made);
    if (isNew(row)) row.classList.add('new');
    row.querySelectorAll('time').forEach(drawTime);
    if (old) takeOver(old, row);
    return row;
  });
  removeRows(rows().filter((row) => !next.includes(row)));
  next.forEach((row, place) => {
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });
}

/** What a row shows. Which row is beside it matters to a browser without JavaScript only. */
function face(/** @type {Element} */ row) {
  const made = /** @type {Element} */ (row.cloneNode(true));
  for (const button of made.querySelectorAll('button')) {
    button.setAttribute('formaction', (button.getAttribute('formaction') ?? '').replace(/&near=\d+/, ''));
  }
  return made;
}

/** Puts a row in the place of its former self, with its opened text and the focus where they were. */
function takeOver(/** @type {HTMLElement} */ old, /** @type {HTMLElement} */ row) {
  const stops = (/** @type {Element} */ of) => /** @type {HTMLElement[]} */ ([of, ...of.querySelectorAll('a, summary, button')]);
  const place = stops(old).indexOf(/** @type {HTMLElement} */ (focused()));
  row.querySelector('details')?.toggleAttribute('open', Boolean(old.querySelector('details')?.open));
  old.replaceWith(row);
  stops(row)[place]?.focus();
}

/** @param {HTMLElement[]} gone */
function removeRows(gone) {
  if (gone.some((row) => row.contains(focused()))) leaveRow(gone);
  gone.forEach((row) => row.remove());
}

/** The focus goes on to the next row, else to the one before, else to the heading; to a button where it was on one. */
function leaveRow(/** @type {HTMLElement[]} */ gone) {
  const all = rows();
  const place = all.findIndex((row) => row.contains(focused()));
  const stays = (/** @type {HTMLElement} */ row) => !gone.includes(row) && !row.hidden;
  const neighbour = all.slice(place).find(stays) ?? all.slice(0, place).findLast(stays);
  const verb = focused()?.closest('button')?.dataset.verb;
  const button = neighbour?.querySelector(`.acts ${verb === 'archive' || verb === 'unarchive' ? 'button:last-child' : 'button'}`);
  (/** @type {HTMLElement | null} */ (verb ? button : neighbour) ?? heading).focus();
}

function drawTitle() {
  document.title = unreadCount ? `(${unreadCount > 99 ? '99+' : unreadCount}) ${words.title}` : words.title;
}

$('show-new').addEventListener('click', () => {
  const before = Number(through.value);
  apply(waiting, { showAll: true });
  (rows().find((row) => Number(row.id.slice(1)) > before) ?? heading).focus();
});

// Acting

let acting = 0; // forms on their way
let queue = Promise.resolve();

act.addEventListener('submit', (event) => {
  const button = /** @type {HTMLButtonElement} */ (event.submitter);
  event.preventDefault();
  const undone = button.dataset.verb === 'undo' ? button.dataset.id ?? '' : null;
  const putBack = anticipate(button);
  submit(button.formAction, fields(), putBack, undone);
});

const fields = () => new URLSearchParams(/** @type {any} */ (new FormData(act)));

/** Shows at once what the button will do. @returns {() => void} takes that back */
function anticipate(/** @type {HTMLButtonElement} */ button) {
  const row = rowOf(button);
  if (!row) return () => {};
  const before = row.className;
  if ('leaves' in button.dataset) {
    if (row.contains(focused())) leaveRow([row]);
    row.hidden = true;
  } else {
    row.classList.toggle('unread', button.dataset.verb === 'unread');
  }
  drawn.delete(row); // whatever comes next from the server takes its place
  return () => {
    row.hidden = false;
    row.className = before;
  };
}

/**
 * One form after the other, so that their answers come in the order of what was done.
 * @param {string} address @param {URLSearchParams} body @param {() => void} putBack
 * @param {string | null} undone the row that is to come back, by its number; '' for many; null where nothing is
 */
function submit(address, body, putBack, undone) {
  acting += 1;
  queue = queue.then(async () => {
    let html = '';
    try {
      html = await poller.act(() => load(address, { method: 'POST', body, signal: deadline() }));
    } catch {
      putBack();
    }
    acting -= 1;
    showTrouble({ acting: html ? null : words.failed });
    if (!html || acting) return; // of several answers the last one holds what all of them did
    apply(html, { acted: true });
    const back = undone === null ? null : document.getElementById(`n${undone}`) ?? heading;
    if (back && (focused() === heading || focused() === document.body)) back.focus();
  });
}

/** Opening the page is looking at what is new, if somebody looks. */
function markSeen() {
  const { seenUrl } = latest;
  if (!seenUrl || waiting || document.hidden) return;
  delete latest.seenUrl;
  // Without poller.act: nothing that is shown changes by it. A failure is made good by the next page that comes.
  send(seenUrl).catch(() => {});
}

document.addEventListener('visibilitychange', () => {
  catchUp();
  markSeen();
});

/** Whoever follows a link out of a notification has read it. The request outlives the page. */
function follow(/** @type {MouseEvent} */ event) {
  const row = rowOf(event.target);
  const isLink = event.target instanceof Element && event.target.closest('a[href]');
  const read = /** @type {HTMLButtonElement | null | undefined} */ (row?.querySelector('[data-verb="read"]'));
  if (!row || !isLink || !read || event.button > 1) return;
  const putBack = anticipate(read);
  poller.act(() => send(read.formAction)).catch(putBack);
}

/** Sends the form without wanting the page that it leads to. @param {string} address */
async function send(address) {
  const response = await fetch(address, { method: 'POST', body: fields(), redirect: 'manual', keepalive: true });
  if (response.type !== 'opaqueredirect') throw new Error(`${address} answered ${response.status}`);
}

// Where a picture does not come, the initials beneath it are seen.
list.addEventListener('error', ({ target }) => target instanceof HTMLImageElement && target.remove(), true);
// Some may have failed before this script was here.
for (const picture of list.querySelectorAll('img')) if (picture.complete && !picture.naturalWidth) picture.remove();
list.addEventListener('click', follow);
list.addEventListener('auxclick', follow);

// The keyboard, while the focus is in the list

const KEYS = /** @type {Record<string, (row: HTMLElement) => void>} */ ({
  j: (row) => go(row, 1),
  ArrowDown: (row) => go(row, 1),
  k: (row) => go(row, -1),
  ArrowUp: (row) => go(row, -1),
  r: (row) => press(row, '[data-verb="read"], [data-verb="unread"]'),
  e: (row) => press(row, '[data-verb="archive"], [data-verb="unarchive"]'),
  Enter: (row) => row === focused() && press(row, '.title a'),
  '?': (row) => {
    help.showModal();
    // The browser gives the focus back to the very element, and a poll may have put a newer one in its place.
    help.addEventListener('close', () => (document.getElementById(row.id) ?? heading).focus(), { once: true });
  },
});

list.addEventListener('keydown', (event) => {
  const row = rowOf(event.target);
  if (!row || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  if (event.key === 'Enter' && event.target !== row) return; // a button's or a link's own
  event.preventDefault();
  KEYS[event.key](row);
});

function go(/** @type {HTMLElement} */ row, /** @type {number} */ step) {
  const shown = rows().filter((it) => !it.hidden);
  const next = shown[shown.indexOf(row) + step];
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: 'nearest' });
}

const press = (/** @type {HTMLElement} */ row, /** @type {string} */ selector) =>
  /** @type {HTMLElement | null} */ (row.querySelector(selector))?.click();

$('help-button').addEventListener('click', () => help.showModal());

// Times

const dayAndTime = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
const clockTime = new Intl.DateTimeFormat(language, { timeStyle: 'short' });
const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto', style: 'short' });

function drawTime(/** @type {Element} */ element) {
  const at = new Date(element.getAttribute('datetime') ?? '');
  const minutes = Math.round((at.getTime() - Date.now()) / 60_000);
  element.setAttribute('title', dayAndTime.format(at));
  if (minutes > -1) element.textContent = relative.format(0, 'second');
  else if (minutes > -60) element.textContent = relative.format(minutes, 'minute');
  else if (minutes > -24 * 60) element.textContent = relative.format(Math.round(minutes / 60), 'hour');
  else if (minutes > -7 * 24 * 60) element.textContent = relative.format(Math.round(minutes / 1440), 'day');
  else element.textContent = dayAndTime.format(at);
}

const drawTimes = () => list.querySelectorAll('time').forEach(drawTime);

// Trouble

let freshUntil = Date.now();

/** @param {import('./types').State} state @param {number | null} freshAt */
function showState(state, freshAt) {
  if (!list.isConnected) return;
  freshUntil = freshAt ?? freshUntil;
  if (state === 'fresh') showTrouble({ polling: null });
  if (state === 'stale') showTrouble({ polling: words.stale(clockTime.format(freshUntil)) });
  if (state !== 'signed out') return;
  // What was shown belongs to the person who signed out, and must not stay on the screen. That leaves as good as
  // another page, so the focus goes to its heading, as it would on one.
  stop();
  help.close();
  $('signed-in').remove();
  $('person').remove();
  $('signed-out').hidden = false;
  document.title = words.title;
  $('signed-out-heading').focus();
}

const trouble = { polling: /** @type {string | null} */ (null), acting: /** @type {string | null} */ (null) };

/** @param {Partial<typeof trouble>} change */
function showTrouble(change) {
  if (!list.isConnected) return;
  Object.assign(trouble, change);
  const hadFocus = $('trouble').contains(focused());
  const boxes = Object.values(trouble).filter(Boolean).map((text) => {
    const box = document.createElement('div');
    box.className = 'trouble';
    box.append(Object.assign(document.createElement('p'), { textContent: text }));
    if (text === trouble.polling) box.append(tryNowButton());
    return box;
  });
  $('trouble').replaceChildren(...boxes);
  if (hadFocus) ($('trouble').querySelector('button') ?? heading).focus();
}

function tryNowButton() {
  const button = Object.assign(document.createElement('button'), { className: 'quiet', textContent: words.tryNow });
  button.addEventListener('click', () => {
    button.textContent = words.trying;
    poller.pollNow();
  });
  return button;
}

// Signing out, which the other tabs need not find out by themselves

const signOut = /** @type {HTMLFormElement} */ ($('person').querySelector('form'));
signOut.addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await send(signOut.action);
    poller.tellOthersToAsk();
  } finally {
    signOut.submit(); // again, for the page that it leads to, or for the browser to say what is wrong
  }
});

// Starting and stopping

const minute = setInterval(drawTimes, 60_000);

function stop() {
  clearInterval(minute);
  clearTimeout(retry);
  asking?.abort();
  poller.stop();
}

rows().forEach((row) => drawn.set(row, face(row)));
[...PARTS, DONE].forEach((id) => drawn.set($(id), $(id).cloneNode(true)));
$('help-button').hidden = false;
// A reload is about the inbox, not about what was done last.
history.replaceState(history.state, '', `${page.dataset.address}${location.hash}`);
addEventListener('pageshow', drawTimes); // out of the back/forward cache they are old
poller.start();
markSeen();
