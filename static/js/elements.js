// Elements are made without markup: no text can become any, and hosts may forbid `innerHTML`.

/** Attributes, listeners, children; null is left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A picture in the colour of the text around it. */
export function icon(path, part = '') {
  const of = 'http://www.w3.org/2000/svg';
  const picture = document.createElementNS(of, 'svg');
  picture.setAttribute('viewBox', '0 0 24 24');
  picture.setAttribute('aria-hidden', 'true');
  if (part) picture.setAttribute('part', part);
  picture.appendChild(document.createElementNS(of, 'path')).setAttribute('d', path);
  return picture;
}
