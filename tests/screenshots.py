"""Takes the pictures of the README and the docs: `make screenshots`."""

import sys
from pathlib import Path

from playwright.sync_api import Page

from tests import postgres
from tests.bells import sign_in
from tests.browser import browser
from tests.host_pages import same_origin

IMAGES = postgres.ROOT / "docs/images"

# What a host's own style sheet might say, so that the bell is seen in something like a product.
HOST = """
    body { margin: 0; font: 16px/1.6 system-ui, sans-serif; background: light-dark(#f6f7f9, #0f1316); }
    header { display: flex; align-items: center; justify-content: space-between; padding: .5rem 1.5rem;
        background: light-dark(#fff, #171d21); border-block-end: 1px solid light-dark(#e3e7ea, #2a3338); }
    header > a { color: inherit; font-weight: 700; font-size: 1.125rem; text-decoration: none; }
    main { max-width: 40rem; padding: 1.5rem; }
"""


def dress(page: Page) -> None:
    page.evaluate(
        """css => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync(css);
            document.adoptedStyleSheets = [sheet];
        }""",
        HOST,
    )


def main(folder: Path = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with postgres.server(), same_origin() as (service, host), browser() as chromium:
        done = service.flask("demo")
        assert done.returncode == 0, done.stderr
        context = chromium.new_context(
            viewport={"width": 860, "height": 640}, device_scale_factor=2, reduced_motion="reduce"
        )
        sign_in(context, service, "ada")
        page = context.new_page()
        page.goto(host)
        dress(page)
        bell = page.locator("notification-bell")
        bell.locator("[part=button]").click()
        bell.locator(".item").nth(2).hover()
        # While the reader is in the list, what is new waits.
        service.send("ada", title="Grace replied to you", url="/notes/7", actor={"name": "Grace Hopper"})
        bell.get_by_role("button", name="Show 1 new").wait_for()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"bell-{scheme}.png", scale="device")
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
