"""What axe finds wrong with a page: in both themes, and from both directions."""

from collections.abc import Iterator
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

RUN = """async ([context, more]) =>
    (await axe.run(context ?? document, { resultTypes: ['violations'], ...more })).violations
    .map(({ id, help, nodes }) => `${id} (${help}): ${nodes.map(({ html }) => html).join(' ')}`)"""

# Of all rules only the one about contrast looks at colours, and the rest need not be asked twice of one direction.
CONTRAST = {"runOnly": ["color-contrast"]}
DRESSES: list[tuple[Literal["dark", "light"], str, dict[str, Any]]] = [
    ("dark", "rtl", {}),
    ("light", "rtl", CONTRAST),
    ("dark", "ltr", CONTRAST),
    ("light", "ltr", {}),
]


def axe_faults(page: Page, context: str | None = None) -> Iterator[str]:
    """Each rule that is broken, with the elements that break it; of one element and what is in it, or of the page."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)  # half a megabyte: once a page
    for scheme, direction, more in DRESSES:
        page.emulate_media(color_scheme=scheme)
        page.evaluate("direction => { document.documentElement.dir = direction; }", direction)
        yield from (f"{scheme}, {direction}: {fault}" for fault in page.evaluate(RUN, [context, more]))
