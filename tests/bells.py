"""A page of a host's with a bell in it, in a real browser, and what a reader does there."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser import PATIENCE
from tests.service import Service

POLL = re.compile(r"/notifications/unread(\?|$)")

# A headless browser shows every tab to somebody. This makes it a matter of `setHidden(true)`; a page opened with
# `#hidden` in its address starts out that way.
VISIBILITY = """
    let hidden = location.hash === '#hidden';
    Object.defineProperty(document, 'hidden', { get: () => hidden });
    Object.defineProperty(document, 'visibilityState', { get: () => (hidden ? 'hidden' : 'visible') });
    window.setHidden = (value) => {
        hidden = value;
        document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
    };
"""

# What a content security policy stopped, and what a screen reader would have said.
LISTEN = """
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
        console.error(`policy: ${violatedDirective} ${blockedURI}`));
    window.heard = [];
    const attach = Element.prototype.attachShadow;
    Element.prototype.attachShadow = function (options) {
        const root = attach.call(this, options);
        new MutationObserver(() => {
            const said = root.querySelector('[role=status]')?.textContent;
            if (said && window.heard.at(-1) !== said) window.heard.push(said);
        }).observe(root, { childList: true, characterData: true, subtree: true });
        return root;
    };
"""


class Bell:
    """A tab with a bell in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.polls: list[int] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("console", self._console)
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _response(self, response: Any) -> None:
        if POLL.search(response.url):
            self.polls.append(response.status)

    def go(self, fragment: str = "") -> "Bell":
        self.page.goto(f"{self.address}/{fragment}")
        expect(self.button).to_be_visible()
        return self

    @property
    def element(self) -> Locator:
        return self.page.locator("notification-bell")

    @property
    def button(self) -> Locator:
        return self.element.locator("[part=button]")

    @property
    def badge(self) -> Locator:
        return self.element.locator("[part=badge]")

    @property
    def panel(self) -> Locator:
        return self.element.get_by_role("region", name="Notifications")

    @property
    def rows(self) -> Locator:
        return self.element.locator(".item")

    @property
    def titles(self) -> Locator:
        return self.element.locator("[part=title]")

    def row(self, title: str) -> Locator:
        return self.rows.filter(has=self.page.locator("[part=title]").get_by_text(title, exact=True))

    def press(self, name: str) -> Locator:
        """Clicks the button of that name in the panel."""
        button = self.panel.get_by_role("button", name=name, exact=True)
        button.click()
        return button

    def open(self) -> "Bell":
        self.button.click()
        expect(self.panel.get_by_role("link", name="See all notifications")).to_be_visible()
        return self

    def heard(self) -> list[str]:
        said: list[str] = self.page.evaluate("window.heard")
        return said

    def wait_for_polls(self, count: int) -> None:
        for _ in range(count):
            with self.page.expect_response(POLL):
                pass

    def focused(self) -> str:
        """The accessible name, or else the text, of what has the focus."""
        name: str = self.page.evaluate("""() => {
            let element = document.activeElement;
            while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
            return element.ariaLabel ?? element.textContent;
        }""")
        return name


OpenBell = Callable[..., Bell]


@contextmanager
def bells(chromium: Browser, service: Service, host: str) -> Iterator[OpenBell]:
    """Opens tabs with bells in them, in a browser of its own unless told which; nothing may go wrong in any."""
    contexts: list[BrowserContext] = []
    opened: list[Bell] = []

    def open_bell(
        subject: str | None = "ada", beside: Bell | None = None, at: str = "", script: str = "", **options: Any
    ) -> Bell:
        if beside is None:
            context = chromium.new_context(**{"reduced_motion": "reduce", **options})
            context.add_init_script(VISIBILITY)
            context.add_init_script(LISTEN)
            contexts.append(context)
            if subject:
                sign_in(context, service, subject)
        context = beside.page.context if beside else contexts[-1]
        bell = Bell(context.new_page(), host)
        bell.page.add_init_script(script)
        opened.append(bell)
        return bell.go(at)

    try:
        yield open_bell
        complaints = [complaint for bell in opened for complaint in bell.complaints]
    finally:
        for context in contexts:
            context.close()
    assert not complaints, complaints


def sign_in(context: BrowserContext, service: Service, subject: str) -> None:
    """Signs in with a one-use link, in no tab."""
    link = service.link(subject)
    path = link.split("/tickets/")[1]
    answer = context.request.post(f"{service.url}/tickets/{path}", form={}, max_redirects=0)
    assert answer.status == 303, answer.text()


def send_all(service: Service, recipient: str, events: Iterable[dict[str, Any]]) -> None:
    """Publishes many events at once, oldest first."""
    lines = [json.dumps({"recipient": recipient, "type": "comment", **event}) for event in events]
    done = service.flask("send", "--file", "-", stdin="\n".join(lines))
    assert done.returncode == 0, done.stderr


def tab_to(bell: Bell, target: Locator) -> None:
    """Presses Tab until the target has the focus, as somebody without a mouse does."""
    for _ in range(40):
        if target.evaluate("element => element === element.getRootNode().activeElement"):
            return
        bell.page.keyboard.press("Tab")
    pytest.fail(f"The keyboard does not reach {target}")
