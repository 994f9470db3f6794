"""The pages, used as readers use them: in a real browser, against the real service."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from app import db, marking, people
from app.people import Reader
from tests import rows
from tests.accessibility import axe_faults
from tests.browser import PATIENCE
from tests.service import Service, running_service, wait_until

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


@dataclass
class Tab:
    """A page and what went wrong in it."""

    page: Page
    has_script: bool = True
    complaints: list[str] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
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
        return self.page.locator("#list > .row:visible")

    @property
    def titles(self) -> Locator:
        return self.rows.get_by_role("heading")

    def row(self, title: str) -> Locator:
        return self.rows.filter(has=self.page.get_by_role("heading", name=title, exact=True))

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


OpenTab = Callable[..., Tab]


@pytest.fixture
def open_tab(chromium: Browser) -> Iterator[OpenTab]:
    """Opens a tab, in a browser of its own unless told which; at the end nothing must have gone wrong in any."""
    contexts: list[BrowserContext] = []
    tabs: list[Tab] = []

    def open_tab(beside: Tab | None = None, **options: Any) -> Tab:
        if beside is None:
            contexts.append(chromium.new_context(**options))
        page = (beside.page.context if beside else contexts[-1]).new_page()
        tabs.append(Tab(page, has_script=options.get("java_script_enabled", True)))
        return tabs[-1]

    yield open_tab
    complaints = [complaint for tab in tabs for complaint in tab.complaints]
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def ada(service: Service) -> str:
    service.add_user("ada")
    return "ada"


@pytest.fixture
def grace(service: Service) -> str:
    service.add_user("grace")
    return "grace"


@pytest.fixture
def three(service: Service, ada: str) -> str:
    """Ada with three notifications."""
    service.send_all(ada, events=({"title": title, "url": f"/{title}"} for title in ("First", "Second", "Third")))
    return ada


def sign_in(tab: Tab, service: Service, subject: str, path: str = "") -> None:
    """By a link, for a password takes a tenth of a second to check."""
    tab.page.goto(service.link(subject))
    if not tab.has_script:
        tab.page.get_by_role("button", name="Continue as").click()
    expect(tab.page.locator("#heading")).to_be_visible()
    if path:
        tab.page.goto(service.url + path)


def reader_of(subject: str) -> Reader:
    """The person in another browser, for what happens there."""
    user_id = rows.one("SELECT id FROM users WHERE subject = :subject", subject=subject)
    reader = db.read(people.start_session, user_id, 1)
    assert reader is not None
    return reader


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


def leave_list(tab: Tab) -> None:
    """Takes pointer and focus out of the list, where they would hold new rows back."""
    tab.page.mouse.move(1, 1)
    tab.page.locator("#heading").focus()


def poll(tab: Tab) -> Any:
    """What the service says to this person, asked beside the page."""
    return tab.page.context.request.get(f"{tab.page.url.split('?')[0]}notifications/unread").json()


def wait_for_polls(tab: Tab, count: int) -> None:
    for _ in range(count):
        with tab.page.expect_response(POLL):
            pass


# Without JavaScript


def test_the_keyboard_alone_does_everything_without_javascript(service: Service, three: str, open_tab: OpenTab) -> None:
    service.add_user(three, PASSWORD)
    tab = open_tab(java_script_enabled=False)
    page, keyboard = tab.page, tab.page.keyboard

    def press(target: Locator) -> None:
        tab_to(tab, target)
        keyboard.press("Enter")

    page.goto(service.url)
    expect(page.get_by_label("Username")).to_be_focused()
    keyboard.type(three)
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    expect(page).to_have_title("(3) Notifications · Belfry")
    expect(page.get_by_role("heading", level=1)).to_have_text("Notifications 3 unread")
    expect(tab.titles).to_have_text(["Third", "Second", "First"])

    press(tab.button("Mark as read: Second"))
    expect(tab.button("Mark as unread: Second")).to_be_in_viewport()
    press(tab.button("Archive: Second"))
    expect(tab.titles).to_have_text(["Third", "First"])
    expect(page.get_by_text("Archived.", exact=True)).to_be_in_viewport()
    press(tab.button("Undo"))
    expect(tab.titles).to_have_text(["Third", "Second", "First"])

    press(page.get_by_role("link", name="Unread"))
    expect(tab.titles).to_have_text(["Third", "First"])
    press(tab.button("Mark all as read"))
    expect(page.get_by_role("heading", name="You’re all caught up")).to_be_visible()
    expect(page).to_have_title("Notifications · Belfry")
    press(tab.button("Undo"))
    expect(tab.titles).to_have_text(["Third", "First"])

    press(page.get_by_role("link", name="All"))
    press(tab.button("Archive all"))
    expect(tab.rows).to_have_count(0)
    press(page.get_by_role("link", name="Archived"))
    press(tab.button("Move back to the inbox: First"))
    expect(tab.titles).to_have_text(["Third", "Second"])

    press(tab.button("Sign out"))
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(service.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_where_the_focus_goes_without_javascript(service: Service, three: str, open_tab: OpenTab) -> None:
    """A browser goes on from the place that an address names: the row beside the one that went."""
    tab = open_tab(java_script_enabled=False)
    sign_in(tab, service, three)
    tab.button("Archive: Third").press("Enter")
    expect(tab.page).to_have_url(re.compile("#n2$"))
    expect(tab.button("Undo")).to_be_visible()
    tab.page.wait_for_load_state()  # the address is there first, and the key would go to the page that leaves
    tab.page.keyboard.press("Tab")
    expect(tab.page.get_by_role("link", name="Second")).to_be_focused()


def test_without_javascript_a_marked_row_comes_back_with_what_stands_above_it(
    service: Service, three: str, open_tab: OpenTab
) -> None:
    tab = open_tab(java_script_enabled=False, viewport={"width": 640, "height": 360})
    sign_in(tab, service, three)
    tab.button("Mark as read: Third").press("Enter")
    expect(tab.page).to_have_url(re.compile("#n3$"))
    place = tab.row("Third").bounding_box()
    assert place
    assert 100 < place["y"] < 200


def test_without_javascript_a_link_only_follows(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab(java_script_enabled=False)
    sign_in(tab, service, three)
    tab.page.get_by_role("link", name="Second").click()
    expect(tab.page).to_have_url(f"{service.url}/Second")
    tab.page.goto(service.url)
    expect(tab.button("Mark as read: Second")).to_be_visible()


def test_a_wrong_password_is_said_and_the_name_is_kept(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.add_user(ada, PASSWORD)
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


def test_what_comes_later_looks_as_what_was_there(service: Service, ada: str, open_tab: OpenTab) -> None:
    def event(title: str) -> None:
        service.send(
            ada, title=title, type="pull_request", body="Some <b>bold</b> words,\nand a second line", url="/pulls/7",
            actor={"name": "Grace Brewster Hopper"}, priority="high",
        )  # fmt: skip

    def shown(tab: Tab, title: str) -> dict[str, Any]:
        expect(tab.row(title)).to_have_count(1)
        return tab.row(title).evaluate("""row => ({
            class: row.classList.contains('unread'),
            bold: row.querySelector('.body b').textContent,
            body: row.querySelector('.body').innerText,
            time: row.querySelector('time').textContent,
        })""")

    event("Before")
    tab = open_tab()
    sign_in(tab, service, ada)
    event("Later")
    expected = {"class": True, "bold": "bold", "body": "Some bold words,\nand a second line", "time": "now"}
    assert shown(tab, "Before") == expected
    assert shown(tab, "Later") == expected


def test_times_are_the_readers_own(service: Service, three: str, open_tab: OpenTab) -> None:
    with service.operator.app_context():
        rows.change("UPDATE events SET created_at = now() - interval '3 hours' WHERE title = 'Third'")
        rows.change("UPDATE events SET created_at = '2026-01-05 23:30:00+00' WHERE title = 'First'")
    tab = open_tab(timezone_id="Asia/Tokyo")
    sign_in(tab, service, three)
    expect(tab.rows.locator("time")).to_have_text(["3 hr. ago", "now", "Jan 6, 2026, 8:30 AM"])
    expect(tab.row("First").locator("time")).to_have_attribute("title", re.compile("Jan 6, 2026"))


def test_a_picture_covers_the_initials_where_it_comes(service: Service, ada: str, open_tab: OpenTab) -> None:
    for title, image in (("Comes", "/static/favicon.svg"), ("Lost", "/static/lost.png")):
        service.send(ada, title=title, actor={"name": "Grace Hopper", "image": image})
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.row("Comes").locator(".arch img")).to_be_visible()
    expect(tab.row("Lost").locator(".arch img")).to_have_count(0)
    expect(tab.row("Lost").locator(".arch")).to_have_text("GH")


def test_a_long_body_opens_and_stays_open_when_something_arrives(service: Service, ada: str, open_tab: OpenTab) -> None:
    body = "word " * 100 + "the end"
    service.send(ada, title="Long", body=body)
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.row("Long").get_by_text("the end")).to_be_hidden()
    tab.row("Long").get_by_text("Show all").click()
    expect(tab.row("Long").get_by_text("the end")).to_be_visible()
    leave_list(tab)
    service.send(ada, title="Later")
    expect(tab.row("Later")).to_be_visible()
    expect(tab.row("Long").get_by_text("the end")).to_be_visible()
    tab.button("Mark as read: Long").click()
    expect(tab.button("Mark as unread: Long")).to_be_visible()
    expect(tab.row("Long").get_by_text("the end")).to_be_visible()


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


def test_it_is_silent_at_first_and_when_the_count_falls_or_rises_by_the_readers_own_hand(
    service: Service, three: str, open_tab: OpenTab
) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    said = heard(tab)
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    other.button("Archive: Second").click()
    expect(tab.row("Second")).to_have_count(0)
    tab.button("Mark as read: First").click()
    tab.button("Mark as unread: First").click()
    expect(tab.button("Mark as read: First")).to_be_visible()
    wait_for_polls(other, 2)  # it was opened last, and so it asks for both
    assert said() == []


def test_looking_marks_as_seen_what_is_shown_and_then_polls_are_answered_304(
    service: Service, three: str, open_tab: OpenTab
) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    wait_until(lambda: poll(tab)["unseen_count"] == 0, "all is seen")
    assert poll(tab)["unread_count"] == 3
    tab.polls.clear()
    wait_until(lambda: wait_for_polls(tab, 1) or tab.polls[-2:] == [304, 304], "nothing changes any more")
    expect(tab.rows).to_have_count(3)


def test_a_page_that_nobody_looks_at_has_seen_nothing(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.page.add_init_script("""
        let hidden = true;
        Object.defineProperty(document, 'hidden', { get: () => hidden });
        addEventListener('show', () => { hidden = false; document.dispatchEvent(new Event('visibilitychange')); });
    """)
    sign_in(tab, service, three)
    service.send(three, title="Later")
    tab.page.wait_for_load_state("networkidle")
    assert poll(tab)["unseen_count"] == 4
    tab.page.evaluate("dispatchEvent(new Event('show'))")
    expect(tab.row("Later")).to_be_visible()
    wait_until(lambda: poll(tab)["unseen_count"] == 0, "all is seen")


def test_whoever_is_in_the_list_is_asked_before_rows_move(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    said = heard(tab)
    tab.button("Mark as read: Second").focus()
    service.send_all(three, events=[{"title": "Fourth"}, {"title": "Fifth"}])
    expect(tab.button("Show 2 new")).to_be_visible()
    expect(tab.titles).to_have_text(["Third", "Second", "First"])
    expect(tab.button("Mark as read: Second")).to_be_focused()
    expect(tab.page).to_have_title("(5) Notifications · Belfry")

    tab.page.keyboard.press("Enter")
    expect(tab.button("Mark as unread: Second")).to_be_focused()
    expect(tab.titles).to_have_text(["Third", "Second", "First"])

    tab_to(tab, tab.button("Show 2 new"))
    tab.page.keyboard.press("Enter")
    expect(tab.titles).to_have_text(["Fifth", "Fourth", "Third", "Second", "First"])
    expect(tab.row("Fifth")).to_be_focused()
    expect(tab.button("Show 2 new")).to_be_hidden()
    assert sum(int(words.split()[0]) for words in said()) == 2


def test_mark_all_spares_the_rows_that_wait(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.row("Second").focus()
    service.send(three, title="Fourth")
    expect(tab.button("Show 1 new")).to_be_visible()
    tab.button("Mark all as read").press("Enter")
    expect(tab.page.get_by_text("3 notifications marked as read.")).to_be_visible()
    expect(tab.page).to_have_title("(1) Notifications · Belfry")
    expect(tab.button("Mark as read: Fourth")).to_be_visible()


def test_the_pointer_in_the_list_holds_new_rows_too(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.row("Second").hover()
    service.send(three, title="Fourth")
    tab.button("Show 1 new").click()
    expect(tab.titles).to_have_text(["Fourth", "Third", "Second", "First"])


def test_filters_take_part_in_what_a_poll_brings(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three, "/?type=alert")
    service.send(three, title="A comment")
    service.send(three, title="An alert", type="alert")
    expect(tab.titles).to_have_text(["An alert"])


# Acting


def test_archiving_takes_the_row_away_and_the_focus_to_the_next(
    service: Service, three: str, open_tab: OpenTab
) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.page.evaluate("window.sameDocument = true")

    tab.button("Archive: Second").press("Enter")
    expect(tab.titles).to_have_text(["Third", "First"])
    expect(tab.button("Archive: First")).to_be_focused()
    expect(tab.page).to_have_title("(2) Notifications · Belfry")

    tab.button("Archive: First").press("Enter")
    expect(tab.button("Archive: Third")).to_be_focused()

    tab.button("Archive: Third").press("Enter")
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
    expect(tab.page.get_by_role("heading", name="You’re all caught up")).to_be_visible()

    tab_to(tab, tab.button("Undo"))
    tab.page.keyboard.press("Enter")
    expect(tab.titles).to_have_text(["Third"])
    expect(tab.row("Third")).to_be_focused()

    assert tab.page.evaluate("window.sameDocument")
    assert tab.page.url == f"{service.url}/"
    tab.page.reload()
    expect(tab.titles).to_have_text(["Third"])


def test_a_toggled_row_keeps_its_place_and_the_focus(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.button("Mark as read: Second").press("Enter")
    expect(tab.button("Mark as unread: Second")).to_be_focused()
    expect(tab.titles).to_have_text(["Third", "Second", "First"])
    expect(tab.page).to_have_title("(2) Notifications · Belfry")


def test_many_quick_actions_all_count(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send_all(ada, events=({"title": f"Number {number}"} for number in range(25)))
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.row("Number 24").focus()
    for _ in range(6):
        tab.page.keyboard.press("e")
    expect(tab.rows).to_have_count(19)
    expect(tab.titles.first).to_have_text("Number 18")
    expect(tab.page.locator(".row")).to_have_count(19)
    expect(tab.row("Number 18")).to_be_focused()


def test_all_are_marked_and_that_is_undone_without_a_reload(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.page.evaluate("window.sameDocument = true")
    tab.button("Mark all as read").press("Enter")
    expect(tab.page.get_by_text("3 notifications marked as read.")).to_be_visible()
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
    expect(tab.page).to_have_title("Notifications · Belfry")
    tab.button("Undo").press("Enter")
    expect(tab.page.get_by_text("Undone.")).to_be_visible()
    expect(tab.page).to_have_title("(3) Notifications · Belfry")
    assert tab.page.evaluate("window.sameDocument")


def test_an_undo_outlasts_what_arrives(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.button("Archive: Second").click()
    expect(tab.button("Undo")).to_be_visible()
    leave_list(tab)
    service.send(three, title="Fourth")
    expect(tab.titles).to_have_text(["Fourth", "Third", "First"])
    tab.button("Undo").click()
    expect(tab.titles).to_have_text(["Fourth", "Third", "Second", "First"])
    expect(tab.button("Undo")).to_have_count(0)


def test_mark_all_leaves_what_the_page_had_not_shown(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send(ada, title="Shown")
    tab = open_tab()
    sign_in(tab, service, ada)
    wait_for_polls(tab, 1)
    tab.page.route(POLL, lambda route: route.abort())
    service.send(ada, title="Not shown yet")
    tab.button("Mark all as read").press("Enter")
    expect(tab.button("Mark as unread: Shown")).to_be_visible()
    expect(tab.button("Mark as read: Not shown yet")).to_be_visible()


def test_following_a_link_marks_as_read(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    tab.page.get_by_role("link", name="Second").click()
    expect(tab.page).to_have_url(f"{service.url}/Second")
    tab.page.goto(service.url)
    expect(tab.button("Mark as unread: Second")).to_be_visible()
    with tab.page.context.expect_page():
        tab.page.get_by_role("link", name="First").click(modifiers=["ControlOrMeta"])
    expect(tab.button("Mark as unread: First")).to_be_visible()
    expect(tab.button("Mark as read: Third")).to_be_visible()


def test_what_fails_is_said_and_put_back(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    for verb in ("archive", "read"):
        tab.page.route(f"**/{verb}?*", lambda route: route.fulfill(status=503))
    tab.button("Archive: Second").click()
    expect(tab.page.get_by_text("That could not be done.")).to_be_visible()
    expect(tab.row("Second")).to_be_visible()
    tab.button("Mark as read: First").click()
    expect(tab.row("First")).to_have_class(re.compile("unread"))

    tab.page.unroute_all()
    tab.button("Archive: Second").click()
    expect(tab.row("Second")).to_have_count(0)
    expect(tab.page.get_by_text("That could not be done.")).to_have_count(0)
    expect(tab.page).to_have_title("(2) Notifications · Belfry")


def test_what_was_marked_in_one_tab_is_so_in_the_other(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    tab.button("Archive: Third").click()
    expect(other.row("Third")).to_have_count(0)
    other.button("Mark as read: First").click()
    expect(tab.button("Mark as unread: First")).to_be_visible()


def test_a_stale_page_acts_for_nobody_else(service: Service, three: str, grace: str, open_tab: OpenTab) -> None:
    service.send_all(grace, events=[{"title": f"For Grace {number}"} for number in range(3)])
    tab = open_tab()
    sign_in(tab, service, three)
    tab.page.route(POLL, lambda route: route.abort())
    other = open_tab(beside=tab, java_script_enabled=True)
    other.page.route(POLL, lambda route: route.abort())
    other.page.goto(service.link(grace))
    other.button(f"Continue as {grace}").click()
    expect(other.page.locator(".who")).to_contain_text(grace)
    tab.button("Archive: Second").click()
    expect(tab.page.locator(".who")).to_contain_text(grace)
    expect(tab.titles).to_have_text(["For Grace 2", "For Grace 1", "For Grace 0"])


# The keyboard


def test_the_keyboard_does_in_the_list_what_the_mouse_can(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)
    keyboard = tab.page.keyboard
    keyboard.press("e")  # outside the list no key means anything
    tab_to(tab, tab.page.get_by_role("link", name="Third"))
    keyboard.press("j")
    expect(tab.row("Second")).to_be_focused()
    keyboard.press("ArrowDown")
    keyboard.press("j")
    expect(tab.row("First")).to_be_focused()
    keyboard.press("k")
    keyboard.press("r")
    expect(tab.button("Mark as unread: Second")).to_be_visible()
    expect(tab.row("Second")).to_be_focused()
    keyboard.press("r")
    expect(tab.button("Mark as read: Second")).to_be_visible()
    keyboard.press("e")
    expect(tab.titles).to_have_text(["Third", "First"])
    expect(tab.row("First")).to_be_focused()

    keyboard.press("?")
    expect(tab.page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    with service.operator.app_context():
        db.write(marking.mark_one, reader_of(three), "read", 1)  # in another browser: the row is drawn anew
    expect(tab.row("First")).not_to_have_class(re.compile("unread"))
    with service.operator.app_context():
        db.write(marking.mark_one, reader_of(three), "unread", 1)
    expect(tab.row("First")).to_have_class(re.compile("unread"))
    keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_be_hidden()
    expect(tab.row("First")).to_be_focused()
    keyboard.press("Control+e")
    keyboard.press("Enter")
    expect(tab.page).to_have_url(f"{service.url}/First")
    tab.page.goto(service.url)
    expect(tab.button("Mark as unread: First")).to_be_visible()
    expect(tab.button("Mark as read: Third")).to_be_visible()


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
    tab.button("Try now").press("Enter")
    expect(tab.page.get_by_text("Not updated since")).to_have_count(0)
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()


def test_a_page_that_cannot_be_had_is_asked_for_again(service: Service, ada: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.page.route(f"{service.url}/", lambda route: route.abort())
    service.send(ada, title="Late")
    expect(tab.page.get_by_text("Not updated since")).to_be_visible()
    tab.page.unroute(f"{service.url}/")
    expect(tab.row("Late")).to_be_visible()
    expect(tab.page.get_by_text("Not updated since")).to_have_count(0)


def test_signed_out_elsewhere_the_page_says_so_shows_nothing_and_asks_no_more(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    service.send(ada, title="Private")
    tab = open_tab()
    sign_in(tab, service, ada)
    expect(tab.row("Private")).to_be_visible()
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    tab.page.bring_to_front()
    other.button("Sign out").click()
    expect(other.page.get_by_role("heading", name="Sign in")).to_be_visible()

    signed_out = tab.page.get_by_role("heading", name="You are signed out")
    expect(signed_out).to_be_visible()
    expect(signed_out).to_be_focused()
    expect(tab.page.get_by_text("Private")).to_have_count(0)
    expect(tab.page.get_by_text(ada, exact=True)).to_have_count(0)
    expect(tab.page).to_have_title("Notifications · Belfry")
    asked = len(tab.polls)
    assert tab.polls[-1] == 401
    tab.page.wait_for_timeout(2500)  # two intervals in which nothing must happen
    assert len(tab.polls) == asked

    tab.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_out_is_told_to_the_other_tabs_at_once(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.page.clock.install()
    sign_in(tab, service, three)
    other = open_tab(beside=tab)
    other.page.goto(service.url)
    expect(other.rows).to_have_count(3)
    tab.page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # no timer of this page fires any more
    other.button("Sign out").click()
    expect(other.page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(tab.page.get_by_role("heading", name="You are signed out")).to_be_visible()


def test_acting_after_the_session_has_ended_shows_the_way_back(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three, "/?state=unread")
    tab.page.route(POLL, lambda route: route.abort())
    tab.page.context.clear_cookies()
    tab.button("Archive: Second").click()
    expect(tab.page.get_by_role("heading", name="You are signed out")).to_be_focused()
    tab.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    expect(tab.page.locator("[name=next]")).to_have_value("/?state=unread")


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


def test_hostile_text_runs_nothing_published_or_put_into_the_database(
    service: Service, ada: str, open_tab: OpenTab
) -> None:
    events = [
        {"title": f"{number} {text}", "body": text, "actor": {"name": f"{number} {text}"[:100]}}
        for number, text in enumerate(HOSTILE)
    ]
    tab = open_tab()
    sign_in(tab, service, ada)
    service.send_all(ada, events=events)
    expect(tab.rows).to_have_count(len(HOSTILE))
    with service.operator.app_context():
        for number, text in enumerate(HOSTILE):
            rows.change(
                "UPDATE events SET title = :bad, body_text = :bad, body_html = :bad, type = :bad, actor_name = :bad,"
                " url = 'javascript:window.pwned = 1' WHERE title ~ :begins",
                bad=text, begins=f"^{number}( |$)",
            )  # fmt: skip
    service.send(ada, title="Whatever makes the page ask again")
    expect(tab.rows).to_have_count(len(HOSTILE) + 1)
    expect(tab.titles).to_have_text(["Whatever makes the page ask again", *reversed(HOSTILE)])
    tab.page.reload()
    expect(tab.titles).to_have_text(["Whatever makes the page ask again", *reversed(HOSTILE)])
    assert tab.page.evaluate("window.pwned") is None
    assert tab.page.locator("#list :is(script, img, iframe, form, [onclick], [style], [href^=javascript])").count() == 0


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
    group = {"title": "Again", "group_key": "g", "type": "status_change", "actor": {"name": "Grace Hopper"}}
    service.send_all(subject, events=[*({"title": f"Number {number}"} for number in range(20)), short, long])
    service.send_all(subject, events=[group, group])
    expect(tab.row("Again")).to_be_visible()
    page.locator("summary").first.click()
    tab.button("Mark as read: Short").click()
    tab.button("Archive: Number 19").click()
    expect(tab.button("Undo")).to_be_visible()
    service.send(subject, title="One more")
    expect(tab.button("Show 1 new")).to_be_visible()
    yield "inbox"
    tab.button("Keyboard shortcuts").click()
    yield "inbox, help"
    for path in ("/?state=archived", "/?state=unread&before=10&type=comment", "/?type=unknown&state=archived"):
        page.goto(service.url + path)
        yield f"inbox {path}"
    page.goto(f"{service.url}/types")
    yield "types"
    page.goto(service.link("grace"))
    yield "sign-in link"
    page.goto(service.url)
    page.route(POLL, lambda route: route.abort())
    expect(page.get_by_text("Not updated since")).to_be_visible()
    yield "inbox, out of reach"
    page.unroute(POLL)
    page.context.clear_cookies()
    # Clicked by the page itself: a poll of its own may come first, and take the button away.
    page.evaluate("document.querySelector('#trouble button')?.click()")
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    yield "inbox, signed out"


def find_faults(page: Page) -> Iterator[str]:
    """What a machine can find: axe's rules in every dress, and targets too small or cut off, narrow and wide."""
    yield from axe_faults(page)
    for width in (1280, 320):
        page.set_viewport_size({"width": width, "height": 700})
        if page.evaluate("document.documentElement.scrollWidth") != width:
            yield f"{width} px are not enough"
        small = page.locator("a, button, summary, input:not([type=hidden])").evaluate_all("""all => all
            .map((element) => [element.outerHTML, element.getBoundingClientRect()])
            .filter(([, { width, height }]) => width > 0 && (width < 24 || height < 24))
            .map(([html]) => html)""")
        yield from (f"{width} px: too small to hit: {element}" for element in small)


def test_every_page_and_state_is_accessible_in_both_themes_and_directions_from_320_pixels_up(
    service: Service, ada: str, grace: str, open_tab: OpenTab
) -> None:
    tab = open_tab(reduced_motion="reduce", has_touch=True)
    faults = {state: list(find_faults(tab.page)) for state in everything(tab, service, ada)}
    assert len(faults) == 13
    assert not any(faults.values()), faults


def test_the_accessible_names_say_what_the_eye_sees(service: Service, ada: str, open_tab: OpenTab) -> None:
    service.send_all(ada, events=[{"title": "Old"}, {"title": "Build failed", "url": "/builds/1", "type": "alert"}])
    tab = open_tab()
    sign_in(tab, service, ada)
    tab.button("Archive: Old").click()
    expect(tab.button("Undo")).to_be_visible()
    expect(tab.page.get_by_role("main")).to_match_aria_snapshot("""
        - main:
          - status
          - heading "Notifications 1 unread" [level=1]
          - navigation "Filter":
            - list:
              - listitem:
                - link "All"
              - listitem:
                - link "Unread"
              - listitem:
                - link "Archived"
            - list "Kind":
              - listitem:
                - link "Every kind"
              - listitem:
                - link "alert"
              - listitem:
                - link "comment"
          - button "Mark all as read"
          - button "Archive all"
          - paragraph: Archived.
          - button "Undo"
          - list "Notifications 1 unread":
            - listitem:
              - text: Unread
              - heading "Build failed" [level=2]:
                - link "Build failed":
                  - /url: /builds/1
              - paragraph:
                - text: alert
                - time: now
              - 'button "Mark as read: Build failed"'
              - 'button "Archive: Build failed"'
          - paragraph:
            - button "Keyboard shortcuts"
    """)


def test_with_the_page_zoomed_or_in_forced_colours_unread_and_actions_stay_in_sight(
    service: Service, three: str, open_tab: OpenTab
) -> None:
    tab = open_tab(forced_colors="active", viewport={"width": 640, "height": 360})
    sign_in(tab, service, three)
    tab.page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 640
    mark = "row => getComputedStyle(row, '::before').backgroundColor"
    assert tab.row("Third").evaluate(mark) != tab.row("Third").evaluate("row => getComputedStyle(row).backgroundColor")
    tab.button("Archive: First").focus()
    expect(tab.button("Archive: First")).to_be_in_viewport()


def test_from_right_to_left_rows_are_mirrored(service: Service, three: str, open_tab: OpenTab) -> None:
    tab = open_tab()
    sign_in(tab, service, three)

    def places() -> list[float]:
        parts = tab.row("Third").locator(".arch, .title a, .acts")
        return [
            box["x"] + box["width"] / 2
            for box in parts.evaluate_all("all => all.map(it => it.getBoundingClientRect().toJSON())")
        ]

    assert places() == sorted(places())
    tab.page.evaluate("document.documentElement.dir = 'rtl'")
    assert places() == sorted(places(), reverse=True)


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
        tab.page.goto(service.url)
        tab.page.get_by_label("Username").fill("ada")
        tab.page.get_by_label("Password").fill(PASSWORD)
        tab.button("Sign in").click()
        expect(tab.page.locator("#heading")).to_be_visible()
        service.send("ada", title="Below the path")
        tab.button("Archive: Below the path").click()
        expect(tab.row("Below the path")).to_have_count(0)
        tab.button("Undo").click()
        tab.page.get_by_role("link", name="Unread").click()
        expect(tab.row("Below the path")).to_be_visible()
        tab.button("Sign out").click()
        expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert [url for url in asked if not url.startswith(f"{service.url}/") and url != service.url] == []


def test_no_address_in_a_template_is_built_by_hand() -> None:
    by_hand = {
        f"{template.name}: {found}"
        for template in TEMPLATES.glob("*.html")
        for found in re.findall(r"""(?:href|src|action|url)=["'][/.][^"']*""", template.read_text())
    }
    assert by_hand == set()
