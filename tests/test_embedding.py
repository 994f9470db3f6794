"""examples/plain-page in the three places where a bell can live, each under a strict content security policy."""

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests import postgres
from tests.bells import bells
from tests.browser import browser
from tests.host_pages import EXAMPLE, program, same_origin
from tests.service import free_port, running_service, wait_until


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


def test_the_example_needs_two_lines_of_html() -> None:
    lines = [line for line in (EXAMPLE / "index.html").read_text().splitlines() if "notification-bell" in line]
    assert len(lines) == 2


def test_the_page_on_embedding_names_what_hosts_can_set() -> None:
    page = (postgres.ROOT / "docs/embedding.md").read_text()
    style = (postgres.ROOT / "static/css/notification-bell.css").read_text()
    scripts = "".join(file.read_text() for file in (postgres.ROOT / "static/js").glob("notification-*.js"))
    documented = set(re.findall(r"--belfry-[a-z-]+", page))
    assert documented == set(re.findall(r"--belfry-[a-z-]+", style))
    attributes = set(re.findall(r"(?:getAttribute|hasAttribute)\('([a-z-]+)'\)", scripts))
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert attributes <= rows
    parts = set(re.findall(r"part: '([\w-]+)'", scripts)) | set(re.findall(r"= button\('(\w+)'", scripts)) | {"icon"}
    named = re.search(r"^Parts: (.+)\.$", page, re.MULTILINE)
    assert named
    assert set(re.findall(r"`([\w-]+)`", named[1])) == parts
    for event in re.findall(r"^\| `(new|count|open|read|error)` \|", page, re.MULTILINE):
        assert f"emit('{event}'" in scripts


def test_under_a_path_of_the_hosts_own_site(chromium: Browser) -> None:
    with same_origin() as (service, host):
        service.add_user("ada")
        service.send("ada", title="Same origin")
        with bells(chromium, service, host) as open_bell:
            bell = open_bell()
            asked: list[str] = []
            bell.page.on("request", lambda request: asked.append(request.url))
            bell.go().open().press("Mark as read: Same origin")
            expect(bell.button).to_have_accessible_name("Notifications")
            bell.press("Archive: Same origin")
            expect(bell.rows).to_have_count(0)
            bell.page.get_by_role("link", name="See all notifications").click()
            expect(bell.page).to_have_title("Notifications · Belfry")
            assert [url for url in asked if not url.startswith((f"{host}/belfry/", f"{host}/"))] == []
            assert bell.page.context.cookies()[0]["path"] == "/belfry"


def test_on_another_port_of_the_same_site_with_the_sessions_cookie(chromium: Browser) -> None:
    port = free_port()
    with (
        running_service(CORS_ORIGINS=f"http://127.0.0.1:{port}", POLL_INTERVAL="1") as service,
        program("host.py", port, "other-port", service.url) as host,
    ):
        service.add_user("ada")
        with bells(chromium, service, host) as open_bell:
            bell = open_bell().open()
            service.send("ada", title="Another port")
            expect(bell.row("Another port")).to_be_visible()
            bell.press("Archive: Another port")
            bell.press("Undo")
            expect(bell.row("Another port")).to_be_visible()
            bell.wait_for_polls(2)
            assert 304 in bell.polls
            bell.element.evaluate("bell => bell.signOut()")
            expect(bell.button).to_have_accessible_name("Notifications, signed out")
            assert bell.page.context.request.get(f"{service.url}/notifications/unread").status == 401


def test_a_host_that_is_not_on_the_list_learns_nothing(chromium: Browser) -> None:
    port = free_port()
    with (
        running_service(POLL_INTERVAL="1") as service,
        program("host.py", port, "other-port", service.url) as host,
    ):
        service.add_user("ada")
        service.send("ada", title="Secret")
        context = chromium.new_context()
        page = context.new_page()
        page.goto(host)
        page.locator("notification-bell [part=button]").click()
        expect(page.locator("notification-bell").get_by_role("button", name="Try now")).to_be_visible()
        expect(page.locator("notification-bell .item")).to_have_count(0)
        context.close()


def test_on_a_foreign_site_with_a_token_and_never_a_cookie(chromium: Browser) -> None:
    port = free_port()
    # `localhost` and `127.0.0.1` are two sites, of one machine.
    with (
        program("stand_in.py", free_port()) as service,
        program("host.py", port, "foreign-site", service),
    ):
        context = chromium.new_context()
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{service}/heard")  # this sets the cookie that must not be sent
        page.goto(f"http://localhost:{port}/")
        bell = page.locator("notification-bell")
        expect(bell.locator("[part=badge]")).to_have_text("1")

        def heard() -> list[dict[str, str | None]]:
            with urllib.request.urlopen(f"{service}/heard", timeout=10) as answer:
                content: list[dict[str, str | None]] = json.load(answer)
            return content

        # Every token of the stand-in's is good twice. Refused, the bell fetches the next one, once.
        wait_until(lambda: any(call["authorization"] == "Bearer token-3" for call in heard()), "a third token")
        expect(bell.locator("[part=button]")).to_have_accessible_name("Notifications, 1 unread")
        calls = [call for call in heard() if "/unread" in (call["path"] or "")]
        tokens = [call["authorization"] for call in calls]
        assert tokens[:7] == [f"Bearer token-{number}" for number in (1, 1, 1, 2, 2, 2, 3)]
        assert {call["cookie"] for call in calls} == {None}
        assert complaints == []
        context.close()
