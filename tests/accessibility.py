"""What axe finds wrong with a page: in both themes, and from both directions."""

from collections.abc import Iterator
from itertools import product

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

RUN = """async ([context]) => (await axe.run(context ?? document, { resultTypes: ['violations'] })).violations
    .map(({ id, help, nodes }) => `${id} (${help}): ${nodes.map(({ html }) => html).join(' ')}`)"""


def axe_faults(page: Page, context: str | None = None) -> Iterator[str]:
    """Each rule that is broken, with the elements that break it; of one element and what is in it, or of the page."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)  # half a megabyte: once a page
    for scheme, direction in product(("dark", "light"), ("rtl", "ltr")):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("direction => { document.documentElement.dir = direction; }", direction)
        yield from (f"{scheme}, {direction}: {fault}" for fault in page.evaluate(RUN, [context]))
