"""The pages, used as readers use them: in a real browser, against the real service."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.browser import browser
from tests.service import Service, running_service

TEMPLATES = Path(__file__).parents[1] / "templates"
PASSWORD = "the quick brown fox"
POLL = "**/notifications/unread*"

HOSTILE = [
    "<script>window.pwned = 1</script>",
    '<img src=x onerror="window.pwned = 1">',
    '<svg onload="window.pwned = 1"></svg>',
    "</title></ul></template><script>window.pwned = 1</script>",
    '<a href="javascript:window.pwned = 1">click</a>',
    '<b onclick="window.pwned = 1" style="position:fixed;inset:0">bold</b>',
    "{{ 7 * 7 }} ${window.pwned = 1} \" ' ` -->",
    '<iframe srcdoc="<script>top.pwned = 1</script>"></iframe>',
    "<form action=https://evil.example><button>Sign in</button></form>",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


@dataclass
class Tab:
    """A page and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(10_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("console", self._console)
        self.page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _response(self, response: Any) -> None:
        if response.url.split("?")[0].endswith("/notifications/unread"):
            self.polls.append(response.status)

    @property
    def rows(self) -> Locator:
        return self.page.locator("#list > .row")

    def row(self, title: str) -> Locator:
        return self.rows.filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def mark_button(self, title: str) -> Locator:
        return self.page.get_by_role("button", name=f"Mark as read: {title}", exact=True)


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[OpenTab]:
    """Opens a tab, in a browser of its own unless told which; at the end nothing must have gone wrong in any."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_tab(beside: Tab | None = None, **options: Any) -> Tab:
        if beside is None:
            contexts.append(chromium.new_context(**options))
        tabs.append(Tab((beside.page.context if beside else contexts[-1]).new_page()))
        return tabs[-1]

    yield open_tab
    complaints = [complaint for tab in tabs for complaint in tab.complaints]
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def ada(service: Service) -> str:
    service.add_user("ada", PASSWORD)
    return "ada"


@pytest.fixture
def grace(service: Service) -> str:
    service.add_user("grace", PASSWORD)
    return "grace"


def sign_in(tab: Tab, service: Service, subject: str) -> None:
    tab.page.goto(f"{service.url}/login")
    tab.page.get_by_label("Username").fill(subject)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.get_by_role("button", name="Sign in").click()
    expect(tab.page.get_by_role("heading", level=1)).to_contain_text("Notifications")


def send_all(service: Service, recipient: str, events: Iterable[dict[str, Any]]) -> None:
    """Publishes many events at once, oldest first."""
    lines = [json.dumps({"recipient": recipient, "type": "comment", **event}) for event in events]
    done = service.flask("send", "--file", "-", stdin="\n".join(lines))
    assert done.returncode == 0, done.stderr


def tab_to(tab: Tab, target: Locator) -> None:
    """Presses Tab until the target has the focus, as somebody without a mouse does."""
    for _ in range(40):
        if target.evaluate("element => element === document.activeElement"):
            return
        tab.page.keyboard.press("Tab")
    pytest.fail(f"The keyboard does not reach {target}")


def heard(tab: Tab) -> Callable[[], list[str]]:
    """Listens to the live region, as a screen reader does; the call gives all that it said."""
    tab.page.evaluate("""() => {
        window.heard = [];
        const region = document.querySelector('[role=status]');
        new MutationObserver(() => region.textContent && window.heard.push(region.textContent))
            .observe(region, { childList: true, characterData: true, subtree: true });
    }""")
    return lambda: tab.page.evaluate("window.heard")


def wait_for_polls(tab: Tab, count: int) -> None:
    for _ in range(count):
        with tab.page.expect_response(POLL):
            pass


# Without JavaScript


def test_the_keyboard_alone_signs_in_reads_marks_and_signs_out_without_javascript(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    send_all(service, ada, ({"title": title} for title in ("First", "Second", "Third")))
    tab = open_tab(java_script_enabled=False)
    keyboard = tab.page.keyboard

    tab.page.goto(service.url)
    expect(tab.page.get_by_label("Username")).to_be_focused()
    keyboard.type(ada)
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    expect(tab.page).to_have_title("(3) Notifications · Belfry")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("Notifications 3 unread")
    expect(tab.rows.get_by_role("heading")).to_have_text(["Third", "Second", "First"])

    tab_to(tab, tab.mark_button("Second"))
    keyboard.press("Enter")
    expect(tab.rows.get_by_role("heading")).to_have_text(["Third", "First"])

    tab_to(tab, tab.page.get_by_role("button", name="Mark all as read"))
    keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_visible()
    expect(tab.page).to_have_title("Notifications · Belfry")

    tab_to(tab, tab.page.get_by_role("button", name="Sign out"))
    keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    tab.page.goto(service.url)
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_wrong_password_is_said_and_the_name_is_kept(service: Service, ada: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.page.goto(f"{service.url}/login")
    tab.page.get_by_label("Username").fill(ada)
    tab.page.get_by_label("Password").fill("wrong")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("alert")).to_be_visible()
    expect(tab.page.get_by_label("Username")).to_have_value(ada)
    password = tab.page.get_by_label("Password")
    expect(password).to_be_focused()
    expect(password).to_have_accessible_description(tab.page.get_by_role("alert").inner_text())
    expect(password).to_have_value("")


def test_a_sign_in_link_asks_first_without_javascript(service: Service, ada: str, open_tab: OpenTab) -> None:
    tab = open_tab(java_script_enabled=False)
    tab.page.goto(service.link(ada))
    tab.page.get_by_role("button", name=f"Continue as {ada}").click()
    expect(tab.page.locator(".who")).to_contain_text(ada)


def test_a_sign_in_link_goes_on_by_itself_where_nobody_is_signed_in(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    tab = open_tab()
    tab.page.goto(service.link(ada))
    expect(tab.page.locator(".who")).to_contain_text(ada)


def test_a_sign_in_link_replaces_nobody_unasked(service: Service, ada: str, grace: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.page.goto(service.link(grace))
    expect(tab.page.get_by_role("main")).to_contain_text(f"You are signed in here as {ada}")
    tab.page.wait_for_load_state("networkidle")
    tab.page.get_by_role("button", name=f"Continue as {grace}").click()
    expect(tab.page.locator(".who")).to_contain_text(grace)


# The list


def test_a_row_shows_all_there_is_to_know(service: Service, ada: str, open_tab: OpenTab) -> None:
    def event(title: str) -> None:
        service.send(
            ada, title=title, type="pull_request", body="Some <b>bold</b> words,\nand a second line", url="/pulls/7",
            actor={"name": "Grace Brewster Hopper"}, priority="high",
        )  # fmt: skip

    def shown(tab: Tab, title: str) -> dict[str, Any]:
        expect(tab.row(title)).to_have_count(1)
        return tab.row(title).evaluate("""row => ({
            arch: row.querySelector('.arch').textContent.trim(),
            href: row.querySelector('.title a').getAttribute('href'),
            rel: row.querySelector('.title a').rel,
            bold: row.querySelector('.body b').textContent,
            body: row.querySelector('.body').innerText,
            facts: [...row.querySelectorAll('.facts > :not(time)')].map((fact) => fact.textContent),
            time: row.querySelector('time').textContent,
            button: row.querySelector('button').textContent.trim(),
        })""")

    event("Before")
    tab = open_tab()
    sign_in(tab, service, ada)
    event("Later")
    expected = {
        "arch": "GH",
        "href": "/pulls/7",
        "rel": "noopener noreferrer",
        "bold": "bold",
        "body": "Some bold words,\nand a second line",
        "facts": ["Important", "Grace Brewster Hopper", "pull request"],
        "time": "now",
    }
    # What the server drew and what the script drew must not be told apart.
    assert shown(tab, "Before") == expected | {"button": "Mark as read: Before"}
    assert shown(tab, "Later") == expected | {"button": "Mark as read: Later"}


def test_a_group_says_how_many_came_before(service: Service, ada: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, ada)
    send_all(service, ada, ({"title": f"Comment {number}", "group_key": "thread-1"} for number in range(3)))
    expect(tab.row("Comment 2").locator(".earlier")).to_have_text("and 2 earlier")
    expect(tab.rows).to_have_count(1)
    tab.page.reload()
    expect(tab.row("Comment 2").locator(".earlier")).to_have_text("and 2 earlier")


def test_a_long_body_opens_and_stays_open_when_something_arrives(service: Service, ada: str, open_tab: OpenTab) -> None:
    body = "word " * 100 + "the end"
    service.send(ada, title="Drawn by the server", body=body)
    tab = open_tab()
    sign_in(tab, service, ada)
    row = tab.row("Drawn by the server")
    expect(row.get_by_text("the end")).to_be_hidden()
    row.get_by_text("Show all").click()
    expect(row.get_by_text("the end")).to_be_visible()
    service.send(ada, title="Drawn by the script", body=body)
    expect(tab.row("Drawn by the script").get_by_text("Show all")).to_be_visible()
    expect(row.get_by_text("the end")).to_be_visible()


def test_more_than_a_page_is_said(service: Service, ada: str, open_tab: OpenTab) -> None:
    send_all(service, ada, ({"title": f"Number {number}"} for number in range(21)))
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.rows).to_have_count(20)
    expect(tab.page.get_by_text("These are the newest 20.")).to_be_visible()
    tab.mark_button("Number 20").click()
    expect(tab.row("Number 0")).to_be_visible()
    expect(tab.page.get_by_text("These are the newest")).to_be_hidden()


# Kept up to date


def test_a_notification_appears_by_polling_alone_and_is_announced_once(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_visible()
    said = heard(tab)  # and lives in the page: a reload would lose it
    service.send(ada, title="It rings")
    expect(tab.row("It rings")).to_be_visible()
    expect(tab.page.get_by_role("status")).to_have_text("1 new notification")
    expect(tab.page).to_have_title("(1) Notifications · Belfry")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("Notifications 1 unread")
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_hidden()
    wait_for_polls(tab, 2)
    assert said() == ["1 new notification"]


def test_it_is_silent_at_first_and_when_the_count_falls(service: Service, ada: str, open_tab: OpenTab) -> None:
    send_all(service, ada, [{"title": "Old"}, {"title": "Older"}])
    tab = open_tab()
    sign_in(tab, service, ada)
    said = heard(tab)
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    other.mark_button("Old").click()
    expect(tab.row("Old")).to_have_count(0)
    wait_for_polls(tab, 1)
    assert said() == []


def test_unchanged_polls_are_answered_304(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Still here")
    tab = open_tab()
    sign_in(tab, service, ada)
    wait_for_polls(tab, 2)
    assert set(tab.polls) == {304}
    expect(tab.row("Still here")).to_be_visible()


def test_a_poll_moves_neither_focus_nor_rows_that_stay(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Here")
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.mark_button("Here").focus()
    service.send(ada, title="There")
    expect(tab.rows.get_by_role("heading")).to_have_text(["There", "Here"])
    expect(tab.mark_button("Here")).to_be_focused()


# Marking


def test_marking_takes_the_row_away_and_the_focus_to_the_next(service: Service, ada: str, open_tab: OpenTab) -> None:
    send_all(service, ada, ({"title": title} for title in ("First", "Second", "Third")))
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.page.evaluate("window.sameDocument = true")

    tab.mark_button("Second").press("Enter")
    expect(tab.rows.get_by_role("heading")).to_have_text(["Third", "First"])
    expect(tab.mark_button("First")).to_be_focused()
    expect(tab.page).to_have_title("(2) Notifications · Belfry")

    tab.mark_button("First").press("Enter")
    expect(tab.mark_button("Third")).to_be_focused()

    tab.mark_button("Third").press("Enter")
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_visible()

    assert tab.page.evaluate("window.sameDocument")
    tab.page.reload()
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_visible()


def test_mark_all_leaves_what_the_page_had_not_shown(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Shown")
    tab = open_tab()
    sign_in(tab, service, ada)
    wait_for_polls(tab, 1)
    tab.page.route(POLL, lambda route: route.abort())
    service.send(ada, title="Not shown yet")
    with tab.page.expect_response("**/notifications/read"):
        tab.page.get_by_role("button", name="Mark all as read").press("Enter")
    expect(tab.row("Shown")).to_have_count(0)
    tab.page.unroute(POLL)
    expect(tab.row("Not shown yet")).to_be_visible(timeout=15_000)
    expect(tab.rows).to_have_count(1)


def test_a_mark_that_fails_is_said_and_takes_nothing_away(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Stays")
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.page.route("**/notifications/read", lambda route: route.fulfill(status=503))
    tab.mark_button("Stays").click()
    expect(tab.page.get_by_text("That could not be marked as read.")).to_be_visible()
    expect(tab.row("Stays")).to_be_visible()

    tab.page.unroute("**/notifications/read")
    tab.mark_button("Stays").click()
    expect(tab.row("Stays")).to_have_count(0)
    expect(tab.page.get_by_text("That could not be marked as read.")).to_have_count(0)


# Trouble


def test_a_service_out_of_reach_is_said_and_the_list_kept(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Last known")
    tab = open_tab()
    sign_in(tab, service, ada)
    wait_for_polls(tab, 1)
    tab.page.route(POLL, lambda route: route.abort())
    expect(tab.page.get_by_text(re.compile("Not updated since .+ Trying again by itself"))).to_be_visible()
    expect(tab.row("Last known")).to_be_visible()

    tab.page.unroute(POLL)
    tab.page.get_by_role("button", name="Try now").press("Enter")
    expect(tab.page.get_by_text("Not updated since")).to_have_count(0)
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()


def test_signed_out_elsewhere_the_page_says_so_shows_nothing_and_asks_no_more(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    service.send(ada, title="Private")
    tab = open_tab()
    tab.page.clock.install()
    sign_in(tab, service, ada)
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    other.page.get_by_role("button", name="Sign out").click()
    expect(other.page.get_by_role("heading", name="Sign in")).to_be_visible()

    signed_out = tab.page.get_by_role("heading", name="You are signed out")
    for _ in range(60):  # another browser tab's sign-out may take that many seconds to be known everywhere
        if signed_out.is_visible():
            break
        with tab.page.expect_response(POLL):
            tab.page.clock.run_for(1500)
    expect(signed_out).to_be_visible()
    expect(signed_out).to_be_focused()
    expect(tab.page.get_by_text("Private")).to_have_count(0)
    expect(tab.page.get_by_text(ada, exact=True)).to_have_count(0)
    expect(tab.page).to_have_title("Notifications · Belfry")

    asked = len(tab.polls)
    tab.page.clock.run_for(3_600_000)
    assert tab.polls[-1] == 401
    assert len(tab.polls) == asked

    tab.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_another_person_in_the_same_browser_never_sees_the_first_ones_list(
    service: Service, ada: str, grace: str, open_tab: OpenTab
) -> None:
    service.send(ada, title="For Ada")
    service.send(grace, title="For Grace")
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.row("For Ada")).to_be_visible()
    other = open_tab(beside=tab)
    other.page.goto(service.link(grace))
    other.page.get_by_role("button", name="Continue as").click()
    expect(tab.row("For Grace")).to_be_visible()
    expect(tab.row("For Ada")).to_have_count(0)
    expect(tab.page.locator(".who")).to_contain_text(grace)


# Text from strangers


def test_hostile_text_runs_nothing_whoever_draws_it(service: Service, ada: str, open_tab: OpenTab) -> None:
    events = [
        {"title": f"{number} {text}", "body": text, "actor": {"name": f"{number} {text}"[:100]}}
        for number, text in enumerate(HOSTILE)
    ]
    send_all(service, ada, events)
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.rows).to_have_count(len(HOSTILE))
    send_all(service, ada, [event | {"type": "again"} for event in events])
    expect(tab.rows).to_have_count(2 * len(HOSTILE))
    assert tab.page.evaluate("window.pwned") is None
    assert tab.page.locator("#list :is(script, img, iframe, [onclick], [style], [href^=javascript])").count() == 0


def test_even_an_answer_that_was_never_cleaned_runs_nothing(service: Service, ada: str, open_tab: OpenTab) -> None:
    def unclean(route: Route) -> None:
        notifications = [
            {
                "id": 1000 - number, "type": text, "title": text, "body": text, "body_html": text, "data": {},
                "url": "javascript:window.pwned = 1", "actor": {"name": text, "url": text, "image": text},
                "priority": text, "count": 1, "created_at": "2030-01-01T00:00:00Z",
            }
            for number, text in enumerate(HOSTILE)
        ]  # fmt: skip
        snapshot = {
            "user": ada, "notifications": notifications, "unread_count": len(HOSTILE), "unseen_count": 0,
            "version": 1000, "more": False,
        }  # fmt: skip
        route.fulfill(json=snapshot, headers={"ETag": '"unclean"'})

    tab = open_tab()
    tab.page.route(POLL, unclean)
    sign_in(tab, service, ada)
    expect(tab.rows.get_by_role("heading")).to_have_text(HOSTILE)
    expect(tab.rows.locator(".body")).to_have_text([re.sub("</?a[^>]*>", "", text) for text in HOSTILE])
    assert tab.row(HOSTILE[4]).locator(".body").inner_html() == "<a>click</a>"
    assert tab.page.locator("#list .title a").count() == 0
    assert tab.page.evaluate("window.pwned") is None


# For everybody


def everything(tab: Tab, service: Service, subject: str) -> Iterator[str]:
    """Goes through every page and every state of it; the name of each, once it is on the screen."""
    page = tab.page
    page.goto(f"{service.url}/login")
    yield "sign-in"
    page.get_by_label("Username").fill(subject)
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    yield "sign-in, refused"
    page.goto(f"{service.url}/nothing-here")
    expect(page.get_by_role("link", name="Go to your notifications")).to_be_visible()
    yield "problem"
    sign_in(tab, service, subject)
    yield "inbox, empty"
    short = {"title": "Short", "body": "A <code>word</code> & <a href='/x?a=1&b=2'>a link</a>", "priority": "high"}
    long = {"title": "تعليق جديد", "body": "نص " * 150, "actor": {"name": "ليلى حسن"}, "url": "https://example.com/"}
    group = {"title": "Again", "group_key": "g", "actor": {"name": "Grace Hopper"}}
    send_all(service, subject, [short, long, group, group])
    expect(tab.rows).to_have_count(3)
    page.locator("summary").first.click()
    yield "inbox"
    page.goto(service.link("grace"))
    yield "sign-in link"
    page.goto(service.url)
    page.route(POLL, lambda route: route.abort())
    expect(page.get_by_text("Not updated since")).to_be_visible()
    yield "inbox, out of reach"
    page.unroute(POLL)
    page.context.clear_cookies()
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    yield "inbox, signed out"


def find_faults(page: Page) -> Iterator[str]:
    """What a machine can find: axe's rules in both directions, and targets too small or cut off, narrow and wide."""
    for direction in ("rtl", "ltr"):
        page.evaluate(f"document.documentElement.dir = '{direction}'")
        results = Axe().run(page)
        if results.violations_count:
            yield f"{direction}: {results.generate_report()}"
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 700})
        if page.evaluate("document.documentElement.scrollWidth") != width:
            yield f"{width} px are not enough"
        small = page.locator("a, button, summary, input:not([type=hidden])").evaluate_all("""all => all
            .map((element) => [element.outerHTML, element.getBoundingClientRect()])
            .filter(([, { width, height }]) => width > 0 && (width < 24 || height < 24))
            .map(([html]) => html)""")
        yield from (f"{width} px: too small to hit: {element}" for element in small)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_and_state_is_accessible_in_both_themes_and_directions_from_320_pixels_up(
    service: Service, ada: str, grace: str, open_tab: OpenTab, scheme: str
) -> None:
    tab = open_tab(color_scheme=scheme, reduced_motion="reduce", has_touch=True)
    faults = {state: list(find_faults(tab.page)) for state in everything(tab, service, ada)}
    assert not any(faults.values()), faults


def test_the_accessible_names_say_what_the_eye_sees(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Build failed", url="/builds/1", type="alert")
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.page.get_by_role("main")).to_match_aria_snapshot("""
        - main:
          - status
          - heading "Notifications 1 unread" [level=1]
          - button "Mark all as read"
          - list "Notifications 1 unread":
            - listitem:
              - heading "Build failed" [level=2]:
                - link "Build failed":
                  - /url: /builds/1
              - paragraph:
                - text: alert
                - time: now
              - 'button "Mark as read: Build failed"'
    """)


def test_motion_is_left_out_for_those_who_asked(service: Service, ada: str, open_tab: OpenTab) -> None:
    tab = open_tab(reduced_motion="reduce")
    sign_in(tab, service, ada)
    service.send(ada, title="Calm")
    expect(tab.row("Calm")).to_be_visible()
    assert tab.row("Calm").evaluate("row => row.getAnimations().length") == 0


def test_under_a_path_of_the_hosts_site_everything_stays_below_it(open_tab: OpenTab) -> None:
    with running_service(PUBLIC_URL="http://127.0.0.1/belfry", POLL_INTERVAL="1") as service:
        service.add_user("ada", PASSWORD)
        service.url += "/belfry"
        tab = open_tab()
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        sign_in(tab, service, "ada")
        service.send("ada", title="Below the path")
        expect(tab.row("Below the path")).to_be_visible()
        tab.mark_button("Below the path").click()
        expect(tab.row("Below the path")).to_have_count(0)
        tab.page.get_by_role("button", name="Sign out").click()
        expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert [url for url in asked if not url.startswith(f"{service.url}/")] == []


def test_no_address_in_a_template_is_built_by_hand() -> None:
    by_hand = {
        f"{template.name}: {found}"
        for template in TEMPLATES.glob("*.html")
        for found in re.findall(r"""(?:href|src|action|url)=["'][/.][^"']*""", template.read_text())
    }
    assert by_hand == set()
