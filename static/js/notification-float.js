/** Where the panel stands while it is open, and what closes it. */

/** Shows it in the top layer, where nothing of the host's can cover or clip it. @param {any} region @param {AbortSignal} signal */
export function float(region, signal) {
  if (!region.showPopover) return;
  region.setAttribute('popover', 'manual');
  region.showPopover();
  place(region);
  addEventListener('resize', () => place(region), { signal });
  addEventListener('scroll', () => place(region), { signal, capture: true, passive: true });
}

/** @param {any} region */
export function land(region) {
  if (region.hidePopover) region.hidePopover();
  region.removeAttribute('popover');
}

/** Beside the button, inside the window, on the side where there is room. */
function place(region) {
  const { style } = region;
  const button = region.previousElementSibling.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const width = region.offsetWidth;
  const toLeft = getComputedStyle(region).direction === 'rtl' ? button.left : button.right - width;
  style.left = `${Math.max(Math.min(toLeft, room - width - 8), 8)}px`;
  style.top = `${Math.max(button.bottom + 8, 8)}px`;
  style.maxHeight = `${Math.max(innerHeight - Math.max(button.bottom, 0) - 24, 240)}px`;
}

/** A click outside, and the focus going elsewhere. @param {any} bell @param {AbortSignal} signal */
export function closeWhenLeft(bell, signal) {
  document.addEventListener('click', (event) => {
    if (event.composedPath().includes(bell)) return;
    bell.close();
    if (document.activeElement === document.body) bell.button.focus();
  }, { signal });
  bell.addEventListener('focusout', ({ relatedTarget }) => {
    if (relatedTarget && relatedTarget !== bell && !bell.root.contains(relatedTarget)) bell.close();
  }, { signal });
}
