"""What a host can have shown outside of the bell: in the page's title and icon, on the app, on the desktop."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.bells import Bell, OpenBell, bells
from tests.service import Service, wait_until

# The browser's own ways out of the page, which a headless one does not have. They write down what they were asked.
DESKTOP = """
    window.badges = [];
    navigator.setAppBadge = async (count) => { window.badges.push(count); };
    navigator.clearAppBadge = async () => { window.badges.push(0); };
    window.notices = [];
    window.asked = 0;
    window.Notification = class extends EventTarget {
        static permission = localStorage.getItem('permission') ?? 'default';
        static async requestPermission() {
            window.asked += 1;
            localStorage.setItem('permission', window.reader);
            return (Notification.permission = window.reader);
        }
        constructor(title, { body, tag }) {
            super();
            window.notices.push({ title, body, tag });
            window.lastNotice = this;
        }
        close() {}
    };
    window.reader = 'granted';
    let looksAt = true;
    document.hasFocus = () => looksAt;
    window.lookAway = () => { looksAt = false; };
    new MutationObserver((_, self) => {
        const bell = document.querySelector('notification-bell');
        if (!bell) return;
        self.disconnect();
        ASKED.forEach(([name, value]) => bell.setAttribute(name, value));
    }).observe(document, { childList: true, subtree: true });
"""


@pytest.fixture
def service(hosted: tuple[Service, str]) -> Service:
    return hosted[0]


@pytest.fixture
def open_bell(chromium: Browser, hosted: tuple[Service, str]) -> Iterator[OpenBell]:
    with bells(chromium, *hosted) as open_bell:

        def open_with(beside: Bell | None = None, at: str = "", **attributes: str) -> Bell:
            asked = [[name.replace("_", "-"), value] for name, value in attributes.items()]
            script = DESKTOP.replace("ASKED", str(asked))
            return open_bell(beside=beside, at=at, script=script)

        yield open_with


def leave(bell: Bell) -> None:
    bell.page.evaluate("document.querySelector('notification-bell').remove()")


def notices(bell: Bell) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = bell.page.evaluate("window.notices")
    return shown


def test_the_title_counts_and_is_given_back_as_the_host_wrote_it_last(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell(title_count="")
    expect(bell.page).to_have_title("Notes")
    service.send("ada", title="One")
    expect(bell.page).to_have_title("(1) Notes")
    bell.page.evaluate("document.title = 'Note G'")
    expect(bell.page).to_have_title("(1) Note G")
    leave(bell)
    expect(bell.page).to_have_title("Note G")


def test_opening_the_bell_clears_the_signs(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell(title_count="", app_badge="")
    expect(bell.page).to_have_title("(1) Notes")
    bell.open()
    expect(bell.page).to_have_title("Notes")
    assert bell.page.evaluate("window.badges") == [0, 1, 0]


def test_of_two_bells_the_first_counts_and_then_the_other(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell(title_count="")
    expect(bell.page).to_have_title("(1) Notes")
    bell.page.evaluate("""() => {
        const second = document.createElement('notification-bell');
        second.setAttribute('title-count', '');
        document.body.append(second);
    }""")
    expect(bell.element.nth(1).locator("[part=badge]")).to_have_text("1")
    expect(bell.page).to_have_title("(1) Notes")
    leave(bell)
    expect(bell.page).to_have_title("(1) Notes")
    leave(bell)
    expect(bell.page).to_have_title("Notes")


def test_the_icon_is_another_one_while_something_waits(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell(unread_icon="/unread.svg")
    icons = "[...document.head.querySelectorAll('link[rel~=icon]')].map((link) => link.getAttribute('href'))"
    bell.page.evaluate("""() => {
        const icon = document.createElement('link');
        document.head.prepend(Object.assign(icon, { rel: 'shortcut icon', href: '/own.svg', type: 'image/svg+xml' }));
    }""")
    before = bell.page.evaluate("document.head.innerHTML")
    service.send("ada", title="One")
    wait_until(lambda: bell.page.evaluate(icons) == ["/unread.svg"], "the icon is the other one")
    bell.open()
    wait_until(lambda: bell.page.evaluate("document.head.innerHTML") == before, "it is given back")


def test_a_browser_that_refuses_the_badge_is_no_error(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell(app_badge="")
    bell.page.evaluate("() => { navigator.setAppBadge = () => Promise.reject(new Error('no')); }")
    service.send("ada", title="One")
    expect(bell.badge).to_have_text("1")
    bell.page.evaluate("() => { navigator.setAppBadge = navigator.clearAppBadge = undefined; }")
    bell.open()
    expect(bell.badge).to_be_hidden()


def test_signing_out_takes_the_signs_away(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell(title_count="", app_badge="")
    expect(bell.page).to_have_title("(1) Notes")
    bell.element.evaluate("bell => bell.signOut()")
    expect(bell.page).to_have_title("Notes")
    assert bell.page.evaluate("window.badges.at(-1)") == 0


def test_nothing_of_it_is_loaded_or_shown_unless_the_host_asks(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell()
    loaded: list[str] = []
    bell.page.on("request", lambda request: loaded.append(request.url))
    bell.go().open()
    assert not [url for url in loaded if "signs" in url or "alerts" in url]
    assert bell.panel.get_by_text("desktop alerts").count() == 0
    expect(bell.page).to_have_title("Notes")
    assert bell.page.evaluate("window.badges") == []


# On the desktop


def test_desktop_alerts_are_asked_for_by_a_click_only_and_shown_once_by_one_page(
    service: Service, open_bell: OpenBell
) -> None:
    service.send("ada", title="Old")
    bell = open_bell(desktop_alerts="").open()
    assert bell.page.evaluate("window.asked") == 0
    expect(bell.panel.get_by_text("Hear of what is new while you are in another window.")).to_be_visible()
    bell.press("Enable desktop alerts")
    expect(bell.panel.get_by_role("button", name="Turn off desktop alerts")).to_be_focused()
    other = open_bell(beside=bell, desktop_alerts="", at="#hidden")
    service.send("ada", title="While looking")
    expect(bell.row("While looking")).to_be_visible()

    bell.page.evaluate("window.lookAway()")
    other.page.evaluate("window.lookAway()")
    service.send("ada", title="Build failed", body="See the <b>log</b>.")
    wait_until(lambda: notices(bell), "the desktop shows it")
    expect(other.badge).to_have_text("1")
    assert [(notice["title"], notice["body"]) for notice in notices(bell)] == [("Build failed", "See the log.")]
    assert re.search(r" ada \d+$", notices(bell)[0]["tag"])
    assert notices(other) == []

    service.send_all("ada", events=({"title": f"Number {number}"} for number in range(4)))
    wait_until(lambda: len(notices(bell)) > 1, "the desktop shows more")
    assert {notice["title"] for notice in notices(bell)[1:]} <= {
        "4 new notifications", *(f"Number {number}" for number in range(4))
    }  # fmt: skip
    bell.button.click()
    bell.page.evaluate("window.lastNotice.dispatchEvent(new Event('click'))")
    expect(bell.panel).to_be_visible()
    bell.press("Turn off desktop alerts")
    count = len(notices(bell))
    service.send("ada", title="Silent")
    expect(bell.element.get_by_role("status")).to_have_text("1 new notification")
    assert len(notices(bell)) == count


@pytest.mark.parametrize("way", ["No, thanks", "Enable desktop alerts"])
def test_a_no_is_remembered(open_bell: OpenBell, way: str) -> None:
    bell = open_bell(desktop_alerts="").open()
    bell.page.evaluate("window.reader = 'denied'")
    bell.press(way)
    why = bell.panel.get_by_text("Hear of what is new while you are in another window.")
    expect(why).to_have_count(0)
    bell.go().open()
    expect(bell.panel.get_by_role("link", name="Preferences")).to_be_visible()
    assert why.count() == 0
    assert bell.panel.get_by_role("button", name="No, thanks").count() == 0
    # Who said no to us may think again; what was said to the browser is the browser's.
    assert bell.panel.get_by_role("button", name="Enable desktop alerts").count() == (way == "No, thanks")
    assert bell.page.evaluate("window.asked") == 0
