/**
 * Keeps the inbox page up to date and lets it mark without a reload. The page is complete without this: what
 * is shown is read from what the server rendered, and every button is a form that works on its own.
 *
 * Text from notifications enters the page as text only; a body's few tags are built one by one.
 */

import { Poller, timing } from './poller.js';

const words = {
  title: 'Notifications · Belfry',
  unread: (/** @type {string} */ count) => `${count} unread`,
  earlier: (/** @type {number} */ count) => `and ${count} earlier`,
  arrived: (/** @type {number} */ count) => (count === 1 ? '1 new notification' : `${count} new notifications`),
  stale: (/** @type {string} */ since) => `Not updated since ${since}. Trying again by itself.`,
  notMarked: 'That could not be marked as read. Please try again.',
  tryNow: 'Try now',
  trying: 'Trying…',
};

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const page = $('inbox');
const list = $('list');
const heading = $('heading');
const template = /** @type {HTMLTemplateElement} */ ($('row'));
const language = document.documentElement.lang;

let unreadCount = Number(page.dataset.unreadCount);
let version = Number(page.dataset.version);

const poller = new Poller({
  url: page.dataset.unreadUrl ?? '',
  etag: page.dataset.etag,
  interval: Number(page.dataset.pollInterval) * 1000 || timing.interval,
  onSnapshot: draw,
  onState: showState,
});

// Drawing the list

/** @param {import('./poller.js').Snapshot} snapshot */
function draw(snapshot) {
  if (snapshot.user !== page.dataset.user) {
    // Somebody else has signed in with this browser: the whole page is about another person now.
    stop();
    location.reload();
    return;
  }
  const rows = new Map([...list.children].map((row) => [Number(/** @type {HTMLElement} */ (row).dataset.id), row]));
  const wanted = snapshot.notifications.map((notification) => {
    // What a number stands for never changes, so a row that is there stays as it is, opened text and all.
    const row = rows.get(notification.id) ?? newRow(notification);
    rows.delete(notification.id);
    return row;
  });
  removeRows([...rows.values()]);
  wanted.forEach((row, place) => {
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });

  if (snapshot.unread_count > unreadCount) announce(snapshot.unread_count - unreadCount);
  unreadCount = snapshot.unread_count;
  version = snapshot.version;
  $('more').hidden = !snapshot.more;
  drawCount();
}

function drawCount() {
  const count = unreadCount > 99 ? '99+' : String(unreadCount);
  document.title = unreadCount ? `(${count}) ${words.title}` : words.title;
  $('count').textContent = words.unread(count);
  $('shown').textContent = String(list.children.length);
  $('count').hidden = unreadCount === 0;
  $('mark-all').hidden = unreadCount === 0;
  list.hidden = list.children.length === 0;
  $('caught-up').hidden = unreadCount > 0;
}

function announce(/** @type {number} */ count) {
  // Emptied first, and filled a moment later: to a screen reader two equal texts in a row would be one.
  $('announcement').textContent = '';
  setTimeout(() => { $('announcement').textContent = words.arrived(count); }, 100);
}

/** @param {any} notification @returns {HTMLElement} */
function newRow(notification) {
  const row = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
  const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (row.querySelector(selector));
  const { id, title, url, body, body_html, actor, type, priority, count, created_at } = notification;

  row.dataset.id = id;
  row.classList.add('new');
  /** @type {HTMLInputElement} */ (part('[name=id]')).value = id;
  part('.name').textContent = title;

  const link = /** @type {HTMLAnchorElement} */ (part('.title a'));
  link.textContent = title;
  if (isWebAddress(url)) link.href = url;
  else link.replaceWith(title);

  const unused = body && isLong(body) ? '.text > .body' : '.long';
  part(unused).remove();
  if (!body) part('.body').remove();
  else part('.body').append(safeBody(body_html));
  if (part('.excerpt')) part('.excerpt').textContent = beginning(body);

  const letters = initials(actor?.name ?? '');
  if (letters) part('.arch').textContent = letters;
  if (actor) part('.actor bdi').textContent = actor.name;
  else part('.actor').remove();
  part('.type').textContent = type.replace(/[_.-]/g, ' ');
  if (priority !== 'high') part('.important').remove();
  if (count > 1) part('.earlier').textContent = words.earlier(count - 1);
  else part('.earlier').remove();
  part('time').setAttribute('datetime', created_at);
  drawTime(part('time'));
  return row;
}

const initials = (/** @type {string} */ name) => {
  const all = name.split(/\s+/).filter(Boolean);
  return [all[0], all.length > 1 ? all[all.length - 1] : '']
    .map((word) => [...(word ?? '')][0] ?? '').join('').toUpperCase();
};

const isLong = (/** @type {string} */ body) => body.length > 280 || body.split('\n').length > 6;
const beginning = (/** @type {string} */ body) => `${[...body].slice(0, 200).join('').replace(/\s+\S*$/, '')}…`;

function isWebAddress(/** @type {string | null} */ url) {
  try {
    return Boolean(url) && /^https?:$/.test(new URL(url ?? '', location.href).protocol);
  } catch {
    return false;
  }
}

/**
 * A body with its few harmless tags, built element by element. app/sanitize.py writes exactly these tags and these
 * entities, so no HTML parser is needed; whatever else may stand there is shown as the text that it is.
 * @param {string} html @returns {DocumentFragment}
 */
function safeBody(html) {
  const fragment = document.createDocumentFragment();
  const open = [/** @type {Node} */ (fragment)];
  for (const piece of html.split(/(<\/?(?:b|strong|i|em|code|a)>|<br>|<a href="[^"<>]*">)/)) {
    const [, slash, tag, href] = piece.match(/^<(\/?)([a-z]+)(?: href="([^"]*)")?>$/) ?? [];
    const inner = open[open.length - 1];
    if (slash && inner.nodeName.toLowerCase() === tag) {
      open.pop();
    } else if (tag && !slash) {
      const element = inner.appendChild(document.createElement(tag));
      if (tag !== 'br') open.push(element);
      if (element instanceof HTMLAnchorElement && href && isWebAddress(characters(href))) {
        element.href = characters(href);
        element.rel = 'noopener noreferrer';
      }
    } else {
      inner.appendChild(document.createTextNode(characters(piece)));
    }
  }
  return fragment;
}

/** Entities become the characters they stand for. */
function characters(/** @type {string} */ text) {
  const named = /** @type {Record<string, string>} */ ({ amp: '&', lt: '<', gt: '>', quot: '"', '#x27': "'" });
  return text.replace(
    /&(amp|lt|gt|quot|#x27|#\d{1,6});/g,
    (_, name) => named[name] ?? String.fromCodePoint(Number(name.slice(1))),
  );
}

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

// Marking as read

document.addEventListener('submit', (event) => {
  const form = /** @type {HTMLFormElement} */ (event.target);
  const row = /** @type {HTMLElement | null} */ (form.closest('.row'));
  if (!row && form.id !== 'mark-all') return;
  event.preventDefault();
  if (row) mark([row], { ids: [Number(row.dataset.id)] });
  else mark([.../** @type {HTMLCollectionOf<HTMLElement>} */ (list.children)], { through: version });
});

/**
 * A row goes when the server has said so, not before: then nothing has to be brought back.
 * @param {HTMLElement[]} rows @param {object} what
 */
async function mark(rows, what) {
  if (rows.some((row) => row.getAttribute('aria-busy'))) return;
  rows.forEach((row) => row.setAttribute('aria-busy', 'true'));
  try {
    const { changed } = await poller.act(() => post(page.dataset.readUrl ?? '', what));
    removeRows(rows);
    // Not the count in the answer: what has arrived meanwhile is in it, and is for the next poll to announce.
    if ('through' in what) unreadCount = 0;
    else if (unreadCount < 100) unreadCount = Math.max(unreadCount - changed, 0);
    drawCount();
    showTrouble({ marking: null });
  } catch {
    rows.forEach((row) => row.removeAttribute('aria-busy'));
    showTrouble({ marking: words.notMarked });
  }
}

async function post(/** @type {string} */ url, /** @type {object} */ body) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(timing.timeout),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}

/** The focus goes on to the next row, else to the one before, else to the heading. */
function removeRows(/** @type {Element[]} */ rows) {
  const focused = rows.find((row) => row.contains(document.activeElement));
  const all = [...list.children];
  const place = focused ? all.indexOf(focused) : -1;
  const stays = (/** @type {Element} */ row) => !rows.includes(row);
  const neighbour = focused && (all.slice(place).find(stays) ?? all.slice(0, place).findLast(stays));
  const hadFocus = focused || $('mark-all').contains(document.activeElement);
  rows.forEach((row) => row.remove());
  if (focused && neighbour) /** @type {HTMLElement | null} */ (neighbour.querySelector('.mark button'))?.focus();
  else if (hadFocus && list.children.length === 0) heading.focus();
}

// Trouble

/** @param {import('./poller.js').State} state @param {number | null} freshAt */
function showState(state, freshAt) {
  if (state === 'fresh') showTrouble({ polling: null });
  if (state === 'stale') showTrouble({ polling: words.stale(clockTime.format(freshAt ?? undefined)) });
  if (state === 'signed out') {
    // What was shown belongs to the person who signed out, and must not stay on the screen. That leaves as good as
    // another page, so the focus goes to its heading, as it would on one.
    stop();
    showTrouble({ polling: null, marking: null });
    $('signed-in').remove();
    $('person').remove();
    $('signed-out').hidden = false;
    document.title = words.title;
    $('signed-out-heading').focus();
  }
}

const trouble = { polling: /** @type {string | null} */ (null), marking: /** @type {string | null} */ (null) };

/** @param {Partial<typeof trouble>} change */
function showTrouble(change) {
  Object.assign(trouble, change);
  const hadFocus = $('trouble').contains(document.activeElement);
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

// Starting and stopping

let minute = 0;

function start() {
  drawTimes();
  minute = setInterval(drawTimes, 60_000);
  poller.start();
}

function stop() {
  clearInterval(minute);
  poller.stop();
}

addEventListener('pagehide', stop);
addEventListener('pageshow', (event) => { if (event.persisted && list.isConnected) start(); });
start();
