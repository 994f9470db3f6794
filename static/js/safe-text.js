/** Text from strangers, the way into the page: as text, or as a few harmless elements built one by one. */

/**
 * A body with its few tags. app/sanitize.py writes exactly these tags and these entities, so no HTML parser is
 * needed; whatever else may stand there is shown as the text that it is.
 * @param {string} html @returns {DocumentFragment}
 */
export function safeBody(html) {
  const fragment = document.createDocumentFragment();
  const open = [fragment];
  for (const piece of html.split(/(<\/?(?:b|strong|i|em|code|a)>|<br>|<a href="[^"<>]*">)/)) {
    const [, slash, tag, href] = piece.match(/^<(\/?)([a-z]+)(?: href="([^"]*)")?>$/) ?? [];
    const inner = open[open.length - 1];
    if (slash && inner.nodeName.toLowerCase() === tag) {
      open.pop();
    } else if (tag && !slash) {
      const element = inner.appendChild(document.createElement(tag));
      if (tag !== 'br') open.push(element);
      if (tag === 'a') pointTo(element, characters(href ?? ''));
    } else {
      inner.appendChild(document.createTextNode(characters(piece)));
    }
  }
  return fragment;
}

/**
 * Makes a link lead there, if that is an address on the web or a path of this site.
 * @param {any} link @param {string | null} address
 */
export function pointTo(link, address) {
  const url = webAddress(address);
  if (!url) return link;
  link.href = address;
  if (url.origin !== location.origin) link.rel = 'noopener noreferrer';
  return link;
}

/** @param {string | null} address @returns {URL | null} */
export function webAddress(address) {
  try {
    const url = new URL(address ?? '', document.baseURI);
    return address && /^https?:$/.test(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/** The letters that stand for a person: of the first and the last word. @param {string} name */
export function initials(name) {
  const all = name.split(/\s+/).filter(Boolean);
  return [all[0], all.length > 1 ? all[all.length - 1] : ''].map((word) => [...(word ?? '')][0] ?? '').join('').toUpperCase();
}

/** Entities become the characters they stand for. */
function characters(/** @type {string} */ text) {
  const named = { amp: '&', lt: '<', gt: '>', quot: '"', '#x27': "'" };
  return text.replace(
    /&(amp|lt|gt|quot|#x27|#\d{1,6});/g,
    (_, name) => named[name] ?? String.fromCodePoint(Number(name.slice(1))),
  );
}
