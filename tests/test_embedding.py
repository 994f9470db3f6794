"""examples/plain-page in the three places where a bell can live, each under a strict content security policy."""

import re

import jwt
import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests import postgres
from tests.bells import POLL, bells
from tests.host_pages import EXAMPLE, program, same_origin
from tests.service import free_port, running_service


def test_the_example_needs_two_lines_of_html() -> None:
    lines = [line for line in (EXAMPLE / "index.html").read_text().splitlines() if "notification-bell" in line]
    assert len(lines) == 2


def test_the_page_on_embedding_names_what_hosts_can_set() -> None:
    page = (postgres.ROOT / "docs/embedding.md").read_text()
    style = "".join(file.read_text() for file in (postgres.ROOT / "static/css").glob("notification-*.css"))
    scripts = "".join(file.read_text() for file in (postgres.ROOT / "static/js").glob("notification-*.js"))
    documented = set(re.findall(r"--belfry-[a-z-]+", page))
    assert documented == set(re.findall(r"--belfry-[a-z-]+", style))
    attributes = set(re.findall(r"(?:getAttribute|hasAttribute)\('([a-z-]+)'\)", scripts))
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert attributes <= rows
    parts = set(re.findall(r"part: '([\w-]+)'", scripts)) | set(re.findall(r"= button\('(\w+)'", scripts)) | {"icon"}
    parts |= set(re.findall(r"preferences\(bell, say, '(\w+)'\)", scripts))
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


def test_on_a_foreign_site_with_a_token_and_never_a_cookie(chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a shared secret of the tests, long enough"
    monkeypatch.setenv("JWT_KEY", key)
    port = free_port()
    # `localhost` and `127.0.0.1` are two sites, of one machine.
    host = f"http://localhost:{port}"
    with (
        running_service(CORS_ORIGINS=host, JWT_KEY=key, POLL_INTERVAL="1") as service,
        program("host.py", port, "foreign-site", service.url),
    ):
        service.add_user("mallory")
        service.send("ada", title="With a token")
        service.send("mallory", title="With a cookie")
        with bells(chromium, service, host) as open_bell:
            # There is somebody else's session, whose cookie must not be sent; and the first token has run out.
            bell = open_bell("mallory")
            bell.page.goto("about:blank")  # the page that was opened polls, and its polls are not counted
            calls: list[Request] = []
            bell.page.on("request", lambda request: POLL.search(request.url) and calls.append(request))
            over = jwt.encode({"sub": "ada", "exp": 1}, key, "HS256")
            given = iter([over])

            def give(route: Route) -> None:
                token = next(given, None)
                route.fulfill(json={"token": token}) if token else route.fallback()

            bell.page.route("**/token", give)
            bell.go().open()
            expect(bell.titles).to_have_text(["With a token"])
            # Refused once, it fetched another token, once.
            assert [call.response().status for call in calls[:2]] == [401, 200]  # type: ignore[union-attr]
            tokens = [call.all_headers()["authorization"] for call in calls]
            assert tokens[0] == f"Bearer {over}" != tokens[1]
            assert not any("cookie" in call.all_headers() for call in calls)
            expect(bell.panel.get_by_role("link", name="Preferences")).to_have_count(0)  # it asks for a session
            bell.press("Archive: With a token")
            expect(bell.rows).to_have_count(0)
            bell.wait_for_polls(1)
            assert bell.polls.count(401) == 1
            bell.element.evaluate("bell => bell.signOut()")
            expect(bell.button).to_have_accessible_name("Notifications, signed out")


def test_a_token_that_stays_bad_signs_the_bell_out(chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_KEY", "another secret than the one of the service")
    port = free_port()
    host = f"http://localhost:{port}"
    with (
        running_service(CORS_ORIGINS=host, JWT_KEY="a shared secret of the tests, long enough") as service,
        program("host.py", port, "foreign-site", service.url),
        bells(chromium, service, host) as open_bell,
    ):
        bell = open_bell(subject=None)
        expect(bell.button).to_have_accessible_name("Notifications, signed out")
        assert bell.polls == [401, 401]
