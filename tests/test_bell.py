"""`<notification-bell>` in a host's page under a strict policy: what a reader sees, hears and does."""

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from playwright.sync_api import Browser, Route, expect

from tests import postgres, rows
from tests.accessibility import axe_faults
from tests.bells import POLL, Bell, OpenBell, bells, send_all, tab_to
from tests.service import Service, wait_until

Hosted = tuple[Service, str]


@pytest.fixture
def service(hosted: Hosted) -> Service:
    return hosted[0]


@pytest.fixture
def open_bell(chromium: Browser, hosted: Hosted) -> Iterator[OpenBell]:
    with bells(chromium, *hosted) as open_bell:
        yield open_bell


def rows_of(service: Service, columns: str) -> list[Any]:
    engine = sqlalchemy.create_engine(service.database_url)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text(f"SELECT {columns} FROM notifications ORDER BY id")).scalars().all()
    engine.dispose()
    return list(rows)


# Kept up to date


def test_a_notification_appears_by_polling_alone_is_announced_once_and_goes_when_read_in_another_tab(
    service: Service, open_bell: OpenBell
) -> None:
    first = open_bell()
    expect(first.button).to_have_accessible_name("Notifications")
    expect(first.badge).to_be_hidden()
    second = open_bell(beside=first).open()
    expect(second.panel.get_by_role("heading", name="You’re all caught up")).to_be_visible()
    done = service.flask("send", "ada", "--type", "comment", "--title", "It rings")
    assert done.returncode == 0, done.stderr
    expect(first.button).to_have_accessible_name("Notifications, 1 unread")
    expect(second.row("It rings")).to_be_visible()
    expect(second.element.get_by_role("status")).to_have_text("1 new notification")
    second.wait_for_polls(2)
    assert first.heard() == second.heard() == ["1 new notification"]

    first.open().press("Mark as read: It rings")
    expect(second.rows).to_have_count(0)
    expect(second.button).to_have_accessible_name("Notifications")


def test_it_is_silent_at_first_and_when_the_count_falls(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": "Old"}, {"title": "Older"}])
    bell = open_bell().open()
    bell.press("Mark as read: Old")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    bell.wait_for_polls(1)
    assert bell.heard() == []


def test_more_than_99_are_99_plus(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", ({"title": f"Number {number}"} for number in range(101)))
    bell = open_bell()
    expect(bell.badge).to_have_text("99+")
    expect(bell.button).to_have_accessible_name("Notifications, 99+ unread")


def test_opening_marks_seen_and_only_acting_marks_read(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Look")
    bell = open_bell()
    expect(bell.badge).to_have_text("1")
    bell.open()
    expect(bell.badge).to_be_hidden()
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    wait_until(lambda: rows_of(service, "seen_at") != [None], "seen is on the server")
    assert rows_of(service, "read_at") == [None]


def test_the_badge_counts_what_is_unread_where_a_host_wants_that(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Look")
    bell = open_bell()
    bell.element.evaluate("bell => bell.setAttribute('badge', 'unread')")
    bell.open()
    wait_until(lambda: rows_of(service, "seen_at") != [None], "seen is on the server")
    expect(bell.badge).to_have_text("1")


def test_another_user_in_an_answer_empties_the_bell(service: Service, open_bell: OpenBell) -> None:
    service.add_user("grace")
    service.send("ada", title="For Ada")
    service.send("grace", title="For Grace")
    bell = open_bell().open()
    expect(bell.row("For Ada")).to_be_visible()
    bell.rows.first.hover()  # in use: nothing of one's own would be taken away now
    ticket = service.link("grace").split("/tickets/")[1]
    bell.wait_for_polls(1)  # one on its way with ada's cookie would be told, rightly, that her session is over
    bell.page.context.request.post(f"{service.url}/tickets/{ticket}", form={})
    expect(bell.row("For Grace")).to_be_visible()
    expect(bell.rows).to_have_count(1)
    assert bell.heard() == []


def test_a_bell_drawn_for_one_person_acts_for_nobody_else(service: Service, open_bell: OpenBell) -> None:
    service.add_user("grace")
    for title in ("One", "Two"):
        service.send("ada", title=f"{title} for Ada")
        service.send("grace", title=f"{title} for Grace")
    bell = open_bell().open()
    bell.page.route(POLL, hold)  # it does not learn that somebody else signs in
    ticket = service.link("grace").split("/tickets/")[1]
    bell.page.context.request.post(f"{service.url}/tickets/{ticket}", form={})
    for name in ("Mark as read: One for Ada", "Archive: Two for Ada", "Mark all as read"):
        with bell.page.expect_response(re.compile("/(read|archive)$")) as refused:
            bell.press(name)
        assert refused.value.status == 412
    bell.page.unroute(POLL)
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.titles).to_have_text(["Two for Grace", "One for Grace"])
    assert rows_of(service, "read_at") == rows_of(service, "archived_at") == [None] * 4
    bell.press("Mark as read: One for Grace")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")


def test_reads_that_one_person_made_offline_are_never_anothers(service: Service, open_bell: OpenBell) -> None:
    service.add_user("grace")
    service.send("ada", title="For Ada")
    service.send("grace", title="For Grace")
    bell = open_bell().open()
    bell.page.context.set_offline(True)
    bell.press("Mark as read: For Ada")
    expect(bell.panel.get_by_text("You are offline. It will be sent when you are back.")).to_be_visible()
    ticket = service.link("grace").split("/tickets/")[1]
    bell.page.context.request.post(f"{service.url}/tickets/{ticket}", form={})
    bell.page.context.set_offline(False)
    expect(bell.row("For Grace")).to_be_visible()
    bell.wait_for_polls(1)
    assert rows_of(service, "read_at") == [None, None]


def test_a_bell_whose_service_is_gone_hides_until_it_is_back(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell().open()
    bell.page.route(POLL, lambda route: route.fulfill(status=404, body=""))
    expect(bell.button).to_be_hidden()
    expect(bell.panel).to_be_hidden()
    bell.page.unroute(POLL)
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")


# What a row shows


def test_a_row_shows_all_there_is_to_know(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", (
        {"title": f"Comment {number}", "body": "Some <b>bold</b> words,\nand a second line", "url": "/notes/7",
         "actor": {"name": "Grace Brewster Hopper", "url": "/people/grace"}, "priority": "high", "group_key": "g"}
        for number in (1, 2, 3)
    ))  # fmt: skip
    row = open_bell().open().row("Comment 3")
    assert row.evaluate("""row => ({
        face: row.querySelector('.face').textContent,
        href: row.querySelector('[part=title]').getAttribute('href'),
        bold: row.querySelector('.body b').textContent,
        body: row.querySelector('.body').innerText,
        actor: row.querySelector('.facts a').getAttribute('href'),
        facts: [...row.querySelectorAll('.facts > *')].map((fact) => fact.textContent),
        title: row.querySelector('time').title !== '',
        direction: row.querySelector('[part=title]').dir,
    })""") == {
        "face": "GH",
        "href": "/notes/7",
        "bold": "bold",
        "body": "Some bold words,\nand a second line",
        "actor": "/people/grace",
        "facts": ["Important", "Grace Brewster Hopper", "now", "and 2 earlier"],
        "title": True,
        "direction": "auto",
    }


def test_only_allowed_origins_give_pictures(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell(bypass_csp=True)  # the host's policy allows its own pictures only
    picture = (postgres.ROOT / "static/favicon.svg").read_text()
    bell.page.route(
        "https://pictures.example/*.svg", lambda route: route.fulfill(content_type="image/svg+xml", body=picture)
    )
    asked: list[str] = []
    bell.page.on("request", lambda request: asked.append(request.url))
    own = f"{bell.address}/belfry/static/favicon.svg"
    for title, image in (
        ("Ours", own),
        ("Allowed", "https://pictures.example/grace.svg"),
        ("Theirs", "https://evil.example/pixel.png"),
        ("Lost", f"{bell.address}/belfry/static/lost.png"),
    ):
        service.send("ada", title=title, actor={"name": "Grace Hopper", "image": image})
    bell.open()
    expect(bell.row("Ours").locator("img")).to_have_attribute("src", own)
    expect(bell.row("Allowed").locator(".face")).to_have_text("")
    expect(bell.row("Lost").locator("img")).to_have_count(0)
    for title in ("Theirs", "Lost"):
        expect(bell.row(title).locator(".face")).to_have_text("GH")
    expect(bell.row("Theirs").locator("img")).to_have_count(0)
    assert not [url for url in asked if "evil" in url]


def test_times_are_relative_for_a_week_and_kept_up(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", ({"title": title} for title in ("Minutes", "Days", "Weeks")))
    engine = sqlalchemy.create_engine(service.database_url)
    with engine.begin() as connection:
        for title, age in (("Minutes", "3 minutes"), ("Days", "2 days"), ("Weeks", "20 days")):
            connection.execute(
                sqlalchemy.text("UPDATE events SET created_at = now() - CAST(:age AS interval) WHERE title = :title"),
                {"age": age, "title": title},
            )
    engine.dispose()
    bell = open_bell()
    bell.page.clock.install()
    bell.open()
    expect(bell.row("Minutes").locator("time")).to_have_text("3 min. ago")
    expect(bell.row("Days").locator("time")).to_have_text("2 days ago")
    expect(bell.row("Weeks").locator("time")).to_have_text(re.compile(r", \d{4}, "))
    bell.page.clock.fast_forward(120_000)
    expect(bell.row("Minutes").locator("time")).to_have_text("5 min. ago")


# What a reader does


def test_following_a_link_marks_read_although_the_page_goes(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Note 7", url="/notes/7")
    bell = open_bell().open()
    bell.row("Note 7").get_by_role("link", name="Note 7").click()
    bell.page.wait_for_url("**/notes/7")
    wait_until(lambda: rows_of(service, "read_at") != [None], "the read outlived its page")


def test_an_item_without_an_address_is_a_button_that_marks_read_and_back(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Maintenance")
    bell = open_bell().open()
    bell.row("Maintenance").get_by_role("button", name="Maintenance", exact=True).click()
    expect(bell.button).to_have_accessible_name("Notifications")
    wait_until(lambda: rows_of(service, "read_at") != [None], "read")
    bell.press("Mark as unread: Maintenance")
    wait_until(lambda: rows_of(service, "read_at") == [None], "unread again")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    expect(bell.row("Maintenance").get_by_text("Unread", exact=True)).to_have_count(1)


def test_archiving_can_be_undone(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": "Keep"}, {"title": "Away"}])
    bell = open_bell().open()
    bell.press("Archive: Away")
    expect(bell.titles).to_have_text(["Keep"])
    expect(bell.panel.get_by_text("Archived.")).to_be_visible()
    assert bell.panel.get_by_text("Archived.").evaluate("said => said.closest('[aria-live]').ariaLive") == "polite"
    bell.press("Undo")
    expect(bell.titles).to_have_text(["Away", "Keep"])
    expect(bell.panel.get_by_role("button", name="Undo")).to_have_count(0)


def test_marking_all_spares_what_was_not_shown_and_can_be_undone(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": "One"}, {"title": "Two"}])
    bell = open_bell().open()
    bell.row("One").hover()
    service.send("ada", title="Unseen")
    expect(bell.panel.get_by_role("button", name="Show 1 new")).to_be_visible()
    tab_to(bell, bell.panel.get_by_role("button", name="Mark all as read"))  # the mouse stays in the list
    bell.page.keyboard.press("Enter")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    assert [at is None for at in rows_of(service, "read_at")] == [False, False, True]
    bell.press("Undo")
    expect(bell.button).to_have_accessible_name("Notifications, 3 unread")
    assert rows_of(service, "read_at") == [None, None, None]


def test_what_is_read_already_is_one_press_away(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", ({"title": f"Number {number}"} for number in range(30)))
    with service.operator.app_context():
        rows.change("UPDATE notifications SET read_at = now() WHERE id <> 29")
    bell = open_bell().open()
    expect(bell.titles).to_have_text(["Number 28"])
    bell.press("All")
    expect(bell.panel.get_by_role("button", name="All", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(bell.rows).to_have_count(20)
    expect(bell.row("Number 29").get_by_text("Unread", exact=True)).to_be_hidden()
    bell.press("Show older")
    expect(bell.rows).to_have_count(30)
    bell.press("Mark as unread: Number 29")
    expect(bell.button).to_have_accessible_name("Notifications, 2 unread")
    bell.press("Archive: Number 0")
    expect(bell.row("Number 0")).to_have_count(0)
    bell.press("Undo")
    expect(bell.titles.last).to_have_text("Number 0")
    service.send("ada", title="New")
    expect(bell.panel.get_by_role("button", name="Show 1 new")).to_be_visible()
    bell.press("Unread")
    expect(bell.titles).to_have_text(["New", "Number 29", "Number 28"])


def test_a_kind_can_be_muted_where_something_of_it_is_put_away(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Noise", type="build_log")
    bell = open_bell().open()

    def muted() -> bool:
        known = bell.page.context.request.get(f"{service.url}/preferences").json()["preferences"]
        return {one["type"]: one["muted"] for one in known}["build_log"]

    bell.press("Archive: Noise")
    bell.press("Mute “build log”")
    expect(bell.panel.get_by_text("Muted: “build log”.")).to_be_visible()
    assert muted()
    bell.press("Undo")
    wait_until(lambda: not muted(), "it is heard again")


def test_what_to_hear_of_is_chosen_on_a_page_that_the_panel_leads_to(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell().open()
    for name in ("Preferences", "Choose what you hear of"):
        link = bell.panel.get_by_role("link", name=name, exact=True)
        expect(link).to_have_attribute("href", f"{service.url}/types")
    link.click()
    expect(bell.page).to_have_title(re.compile("^Kinds of notifications"))


def test_nothing_moves_under_the_pointer_and_what_is_new_waits(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": "One"}, {"title": "Two"}])
    bell = open_bell().open()
    bell.row("One").hover()
    before = bell.row("One").bounding_box()
    service.send("ada", title="Three")
    more = bell.panel.get_by_role("button", name="Show 1 new")
    expect(more).to_be_visible()
    expect(bell.badge).to_have_text("1")
    assert bell.row("One").bounding_box() == before
    more.click()
    expect(bell.titles).to_have_text(["Three", "Two", "One"])
    assert bell.focused() == "Three"
    expect(bell.badge).to_be_hidden()


def test_more_than_the_first_page_can_be_reached(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", ({"title": f"Number {number}"} for number in range(45)))
    bell = open_bell().open()
    expect(bell.rows).to_have_count(20)
    older = bell.press("Show older")
    expect(bell.rows).to_have_count(40)
    assert bell.focused() == "Number 24"
    older.click()
    expect(bell.rows).to_have_count(45)
    expect(older).to_be_hidden()
    bell.wait_for_polls(1)
    expect(bell.rows).to_have_count(45)


def test_after_a_removal_the_focus_goes_to_the_next_row_the_previous_one_the_heading(
    service: Service, open_bell: OpenBell
) -> None:
    send_all(service, "ada", [{"title": "One"}, {"title": "Two"}, {"title": "Three"}])
    bell = open_bell().open()
    for archived, focused in (("Two", "One"), ("One", "Three"), ("Three", "Notifications")):
        button = bell.panel.get_by_role("button", name=f"Archive: {archived}")
        button.focus()
        bell.page.keyboard.press("Enter")
        expect(button).to_have_count(0)
        assert bell.focused() == focused


def test_escape_and_a_click_outside_close_it_and_give_the_focus_back(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell().open()
    expect(bell.button).to_have_attribute("aria-expanded", "true")
    bell.row("One").get_by_role("button", name="One", exact=True).focus()
    bell.page.keyboard.press("Escape")
    expect(bell.panel).to_be_hidden()
    expect(bell.button).to_have_attribute("aria-expanded", "false")
    expect(bell.button).to_be_focused()

    bell.open().press("Keyboard shortcuts")
    bell.page.mouse.click(600, 700)
    expect(bell.panel).to_be_hidden()
    expect(bell.button).to_be_focused()

    bell.open()
    bell.page.get_by_role("link", name="Next note").focus()
    expect(bell.panel).to_be_hidden()
    assert bell.focused() == "Next note"


def test_the_keyboard_alone_does_everything(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": title} for title in ("One", "Two", "Three")])
    bell = open_bell()
    keys = bell.page.keyboard
    tab_to(bell, bell.button)
    keys.press("Enter")
    expect(bell.rows).to_have_count(3)
    keys.press("j")
    assert bell.focused() == "Three"
    keys.press("ArrowDown")
    keys.press("j")
    keys.press("j")
    assert bell.focused() == "One"
    keys.press("k")
    keys.press("ArrowUp")
    assert bell.focused() == "Three"
    keys.press("r")
    expect(bell.button).to_have_accessible_name("Notifications, 2 unread")
    keys.press("r")
    expect(bell.button).to_have_accessible_name("Notifications, 3 unread")
    keys.press("e")
    expect(bell.titles).to_have_text(["Two", "One"])
    assert bell.focused() == "Two"
    keys.press("Enter")
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    keys.press("?")
    expect(bell.panel.get_by_text("Next, previous")).to_be_visible()
    tab_to(bell, bell.panel.get_by_role("button", name="Undo"))
    keys.press("Enter")
    expect(bell.rows).to_have_count(3)
    keys.press("Escape")
    expect(bell.panel).to_be_hidden()
    expect(bell.button).to_be_focused()


def test_keys_mean_nothing_while_the_focus_is_elsewhere(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell()
    bell.page.get_by_role("link", name="Next note").focus()
    for key in ("j", "e", "r", "?"):
        bell.page.keyboard.press(key)
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
    expect(bell.panel).to_be_hidden()
    assert rows_of(service, "archived_at") == [None]


# When things go wrong


def test_a_change_that_fails_is_taken_back_and_said(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell().open()
    bell.page.route("**/notifications/*/read", lambda route: route.fulfill(status=500, body="{}"))
    bell.press("Mark as read: One")
    expect(bell.panel.get_by_text("That did not work. Please try again.")).to_be_visible()
    expect(bell.panel.get_by_role("button", name="Mark as read: One")).to_be_visible()
    expect(bell.button).to_have_accessible_name("Notifications, 1 unread")


def test_reads_made_offline_are_kept_and_sent_once(service: Service, open_bell: OpenBell) -> None:
    send_all(service, "ada", [{"title": "One"}, {"title": "Two"}])
    bell = open_bell().open()
    sent: list[Any] = []
    bell.page.on("request", lambda request: request.url.endswith("/read") and sent.append(request.post_data_json))
    bell.page.context.set_offline(True)
    bell.press("Mark as read: One")
    expect(bell.panel.get_by_text("You are offline. It will be sent when you are back.")).to_be_visible()
    bell.press("Mark as read: Two")
    expect(bell.button).to_have_accessible_name("Notifications")
    sent.clear()
    bell.page.context.set_offline(False)
    wait_until(lambda: bell.page.wait_for_timeout(20) or None not in rows_of(service, "read_at"), "both are read")
    bell.wait_for_polls(2)
    assert sent == [{"ids": [1, 2]}]
    expect(bell.button).to_have_accessible_name("Notifications")


def hold(route: Route) -> None:
    """Leaves a request without an answer."""


def test_the_four_states_say_what_they_are(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell()
    bell.page.route(POLL, hold)
    bell.go()
    bell.open()
    expect(bell.panel.get_by_text("Loading…")).to_have_count(1)
    bell.page.unroute(POLL)
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.panel.get_by_role("heading", name="You’re all caught up")).to_be_visible()

    service.send("ada", title="Kept")
    expect(bell.row("Kept")).to_be_visible()
    bell.page.route(POLL, lambda route: route.abort())
    trouble = bell.panel.get_by_text(re.compile(r"^Not updated since \d\d?:\d\d"))
    expect(trouble).to_be_visible()
    expect(bell.row("Kept")).to_be_visible()
    bell.page.unroute(POLL)
    bell.press("Try now")
    expect(trouble).to_have_count(0)

    bell.page.context.request.post(f"{service.url}/logout", form={})
    expect(bell.panel.get_by_role("heading", name="You are signed out")).to_be_visible()
    expect(bell.panel.get_by_role("link", name="Sign in")).to_have_attribute("href", f"{service.url}/login")
    expect(bell.button).to_have_accessible_name("Notifications, signed out")
    expect(bell.rows).to_have_count(0)
    assert 401 in bell.polls
    polled = len(bell.polls)
    bell.page.clock.install()
    bell.page.clock.fast_forward(60_000)
    assert len(bell.polls) == polled


def test_a_server_that_asks_for_patience_gets_it(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell()
    bell.wait_for_polls(1)
    times: list[float] = []

    def refuse(route: Route) -> None:
        times.append(bell.page.evaluate("performance.now()"))
        route.fulfill(status=429, headers={"Retry-After": "3"}, body="{}")

    bell.page.route(POLL, refuse)
    wait_until(lambda: bell.page.wait_for_timeout(50) or len(times) == 2, "it comes back")
    assert 3000 <= times[1] - times[0] < 5000


def test_a_panel_that_could_not_be_loaded_can_be_tried_again(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell()
    bell.page.route("**/notification-panel.js*", lambda route: route.abort())
    bell.button.click()
    expect(bell.panel.get_by_text("This could not be loaded.")).to_be_visible()
    bell.button.click()
    bell.page.unroute("**/notification-panel.js*")
    bell.open()
    expect(bell.row("One")).to_be_visible()


# For hosts


def test_a_host_hears_of_everything_and_can_refresh_and_sign_out(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell()
    bell.element.evaluate("""bell => {
        window.events = [];
        for (const type of ['new', 'count', 'open', 'read', 'error']) {
            bell.addEventListener(type, ({ detail }) => window.events.push([type, detail]));
        }
    }""")
    service.send("ada", title="One")
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.badge).to_have_text("1")
    bell.open().press("Mark as read: One")
    expect(bell.button).to_have_accessible_name("Notifications")
    other = open_bell(beside=bell)
    bell.element.evaluate("bell => bell.signOut()")
    expect(bell.button).to_have_accessible_name("Notifications, signed out")
    expect(other.button).to_have_accessible_name("Notifications, signed out")

    events = bell.page.evaluate("window.events")
    assert [detail["notifications"][0]["title"] for kind, detail in events if kind == "new"] == ["One"]
    assert ["count", {"unread": 1, "unseen": 1}] in events
    assert ["read", {"ids": [1]}] in events
    assert ["error", {"state": "signed out"}] in events
    assert [kind for kind, _ in events].count("open") == 1


def test_it_leaves_cleanly_and_can_come_back(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell().open()
    bell.page.evaluate("window.kept = document.querySelector('notification-bell'); window.kept.remove()")
    assert bell.page.evaluate("navigator.locks.query().then(({ held, pending }) => held.length + pending.length)") == 0
    polled = len(bell.polls)
    bell.page.clock.install()
    bell.page.clock.fast_forward(60_000)
    assert len(bell.polls) == polled
    service.send("ada", title="One")
    bell.page.evaluate("document.body.append(window.kept)")
    expect(bell.badge).to_have_text("1")
    bell.open()
    expect(bell.row("One")).to_be_visible()


def test_a_host_dresses_it_by_properties_and_parts(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell().open()
    bell.page.evaluate("""() => {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(`notification-bell { --belfry-surface: rgb(1, 2, 3); }
            notification-bell::part(heading) { text-transform: uppercase; }`);
        document.adoptedStyleSheets.push(sheet);
    }""")
    expect(bell.panel).to_have_css("background-color", "rgb(1, 2, 3)")
    expect(bell.panel.get_by_role("heading", name="Notifications")).to_have_css("text-transform", "uppercase")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_it_follows_the_page_or_what_the_host_says(open_bell: OpenBell, theme: str) -> None:
    bell = open_bell(color_scheme=theme).open()
    colours = {"dark": "rgb(21, 32, 29)", "light": "rgb(255, 255, 255)"}
    expect(bell.panel).to_have_css("background-color", colours[theme])
    bell.element.evaluate("bell => bell.setAttribute('theme', 'dark')")
    expect(bell.panel).to_have_css("background-color", colours["dark"])


# What it costs


@pytest.mark.parametrize("way_in", ["session", "token"])
def test_what_a_page_with_a_bell_loads_is_small(service: Service, open_bell: OpenBell, way_in: str) -> None:
    loaded: list[str] = []
    bell = open_bell()
    if way_in == "token":
        bell.page.add_init_script("""new MutationObserver(() =>
            document.querySelector('notification-bell')?.setAttribute('token-url', '/token'))
            .observe(document, { childList: true, subtree: true })""")
    bell.page.on("request", lambda request: loaded.append(request.url))
    bell.go()
    bell.wait_for_polls(1) if way_in == "session" else wait_until(lambda: f"{bell.address}/token" in loaded, "asked")
    assert any(url.endswith("/token.js") for url in loaded) == (way_in == "token")
    sizes = {"js": 0, "css": 0}
    for url in loaded:
        if found := re.search(r"/belfry/static/(.+\.(js|css))$", url):
            sizes[found[2]] += len(gzip.compress((postgres.ROOT / "static" / found[1]).read_bytes(), 9))
    assert 0 < sizes["js"] <= 10_000, sizes
    assert 0 < sizes["css"] <= 3_000, sizes
    assert [url for url in loaded if not url.startswith(f"{bell.address}/")] == []


def test_nothing_in_it_needs_a_build_or_another_package() -> None:
    for file in (postgres.ROOT / "static/js").rglob("*.js"):
        imports = re.findall(r"""(?:from|import\() ?['"`]([^'"`]+)""", file.read_text())
        assert all(name.startswith(("./", "../")) for name in imports), (file.name, imports)


def test_no_script_makes_markup_or_code_out_of_text() -> None:
    makers = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|setHTML|createContext"
    )
    for file in (postgres.ROOT / "static/js").rglob("*.js"):
        said = re.sub(r"`\w+`", "", file.read_text())  # in a comment
        assert not re.findall(makers, said), file.name


# For everyone


def test_the_accessible_tree_says_what_the_eye_sees(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="Build failed", url="/builds/1", body="See the log.", priority="high")
    bell = open_bell().open()
    expect(bell.element).to_match_aria_snapshot("""
        - button "Notifications, 1 unread" [expanded]
        - region "Notifications":
          - heading "Notifications" [level=2]
          - button "Mark all as read"
          - list "Notifications":
            - listitem:
              - text: Unread
              - link "Build failed":
                - /url: /builds/1
              - text: See the log.
              - paragraph:
                - text: Important
                - time: now
              - 'button "Mark as read: Build failed"'
              - 'button "Archive: Build failed"'
          - link "See all notifications":
            - /url: /.*\\/belfry\\//
          - button "Keyboard shortcuts"
        - status
    """)


def states(bell: Bell, service: Service) -> Iterator[str]:
    """Leads the bell through all that it can look like."""
    bell.page.route(POLL, hold)
    bell.go().open()
    yield "loading"
    bell.page.unroute(POLL)
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.panel.get_by_role("heading", name="You’re all caught up")).to_be_visible()
    yield "empty"
    bell.button.click()
    send_all(service, "ada", json.loads((postgres.ROOT / "tests/data/bell-events.json").read_text()))
    expect(bell.badge).to_have_text("26")
    bell.open()
    expect(bell.rows).to_have_count(20)
    bell.press("Keyboard shortcuts")
    bell.rows.first.get_by_role("button", name=re.compile("^Archive")).click()
    expect(bell.panel.get_by_role("button", name="Undo")).to_be_visible()
    bell.rows.nth(1).get_by_role("button", name=re.compile("^Mark as read")).click()
    service.send("ada", title="One more")
    expect(bell.panel.get_by_role("button", name="Show 1 new")).to_be_visible()
    yield "list"
    bell.press("All")
    expect(bell.panel.get_by_role("button", name=re.compile("^Mark as unread")).first).to_be_visible()
    yield "all"
    bell.page.route(POLL, lambda route: route.abort())
    expect(bell.panel.get_by_role("button", name="Try now")).to_be_visible()
    yield "trouble"
    bell.page.unroute(POLL)
    bell.page.context.request.post(f"{service.url}/logout", form={})
    bell.element.evaluate("bell => bell.refresh()")
    expect(bell.panel.get_by_role("link", name="Sign in")).to_be_visible()
    yield "signed out"


def find_faults(bell: Bell) -> Iterator[str]:
    """What a machine can find: axe's rules in every dress, and what is too small or cut off, narrow and wide."""
    page = bell.page
    yield from axe_faults(page, "notification-bell")  # the rest is bare HTML
    # 320 px, and the same with everything twice as large, which is what a zoom to 200 % comes to.
    for width, size, direction in (
        (1280, "100%", "ltr"),
        (320, "100%", "rtl"),
        (320, "100%", "ltr"),
        (640, "200%", "ltr"),
    ):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(
            """([size, direction]) => {
                document.documentElement.style.setProperty('font-size', size);
                document.documentElement.dir = direction;
            }""",
            [size, direction],
        )
        if page.evaluate("document.documentElement.scrollWidth") > width:
            yield f"{width} px are not enough"
        small = bell.element.locator("a, button").evaluate_all("""all => all
            .map((element) => [element.outerHTML, element, element.getBoundingClientRect()])
            .filter(([, element, { width, height, right, left }]) => width > 0
                && (right > innerWidth + 1 || left < -1
                    || (!element.closest('.body') && (width < 24 || height < 24)
                        && getComputedStyle(element, '::after').position !== 'absolute')))
            .map(([html]) => html)""")
        yield from (f"{width} px, {size}, {direction}: too small, or outside: {element}" for element in small)
    page.evaluate("document.documentElement.style.removeProperty('font-size')")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_every_state_is_accessible_in_both_themes_and_directions_from_320_pixels_up(
    service: Service, open_bell: OpenBell
) -> None:
    bell = open_bell(bypass_csp=True)  # axe itself brings inline styles
    faults = {state: list(find_faults(bell)) for state in states(bell, service)}
    assert len(faults) == 6
    assert not any(faults.values()), faults


def test_forced_colours_keep_the_badge_and_what_is_unread(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="One")
    bell = open_bell(forced_colors="active")
    expect(bell.badge).to_have_css("border-top-style", "solid")
    bell.open()
    bar = bell.row("One").evaluate("row => getComputedStyle(row, '::before').backgroundColor")
    assert bar != bell.panel.evaluate("panel => getComputedStyle(panel).backgroundColor")
    expect(bell.panel.get_by_role("button", name="Unread", exact=True)).to_have_css("border-top-width", "2px")
    expect(bell.panel.get_by_role("button", name="All", exact=True)).to_have_css("border-top-width", "1px")


def test_what_is_written_the_other_way_begins_at_the_same_edge(service: Service, open_bell: OpenBell) -> None:
    service.send("ada", title="مرحبا", body="نص عربي")
    expect(open_bell().open().element.locator("[part=body]")).to_have_css("text-align", "left")


@pytest.mark.parametrize(("height", "place"), [(800, "fixed; bottom: 0"), (256, "static")], ids=["at the foot", "low"])
def test_all_of_the_panel_can_be_reached_wherever_the_bell_is(
    service: Service, open_bell: OpenBell, height: int, place: str
) -> None:
    send_all(service, "ada", ({"title": str(number)} for number in range(20)))
    bell = open_bell(viewport={"width": 320, "height": height}, bypass_csp=True)
    bell.element.evaluate("(bell, place) => bell.setAttribute('style', `position: ${place}`)", place)
    bell.open()
    box = bell.panel.bounding_box()
    assert box
    assert 0 <= box["y"] < box["y"] + 150 < box["y"] + box["height"] <= height
    bell.panel.get_by_role("link", name="See all notifications").scroll_into_view_if_needed()
    expect(bell.panel.get_by_role("link", name="See all notifications")).to_be_in_viewport(ratio=1)


def test_the_shortcuts_can_be_read_in_a_low_window_and_are_gone_the_next_time(open_bell: OpenBell) -> None:
    bell = open_bell(viewport={"width": 320, "height": 256}).open()  # 1280 by 1024 at 400 %
    bell.press("Keyboard shortcuts")
    told = bell.panel.get_by_text("Close", exact=True)
    told.scroll_into_view_if_needed()
    assert told.evaluate(
        "(told, panel) => told.getBoundingClientRect().bottom <= panel.getBoundingClientRect().bottom",
        bell.panel.element_handle(),
    )
    bell.page.keyboard.press("Escape")
    bell.open()
    expect(told).to_be_hidden()


def test_it_moves_only_for_those_who_do_not_mind(service: Service, open_bell: OpenBell) -> None:
    for motion, moving in (("reduce", 0), ("no-preference", 1)):
        bell = open_bell(reduced_motion=motion)
        bell.open()
        expect(bell.panel).to_have_attribute("popover", "manual")
        assert bell.panel.evaluate("panel => getComputedStyle(panel).animationName !== 'none' ? 1 : 0") == moving
