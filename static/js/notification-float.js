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

/** Below the button, or above it where there is more room, and inside the window. */
function place(region) {
  const { style } = region;
  const button = region.previousElementSibling.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const width = region.offsetWidth;
  const toLeft = getComputedStyle(region).direction === 'rtl' ? button.left : button.right - width;
  style.left = `${Math.max(Math.min(toLeft, room - width - 8), 8)}px`;
  const below = innerHeight - Math.max(button.bottom, 0) - 24;
  const above = Math.min(button.top, innerHeight) - 24;
  const isBelow = below >= Math.min(above, 240);
  style.top = isBelow ? `${Math.max(button.bottom + 8, 8)}px` : 'auto';
  style.bottom = isBelow ? 'auto' : `${Math.max(innerHeight - button.top + 8, 8)}px`;
  style.maxHeight = `${isBelow ? below : above}px`;
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
