"""One poller per browser: several tabs, the server's own log, a server that goes away, the back/forward cache."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from playwright.sync_api import Browser, expect

from tests.bells import POLL, Bell, OpenBell, bells
from tests.browser import ARGUMENTS, NAMES
from tests.conftest import empty
from tests.host_pages import same_origin
from tests.service import Service, wait_until


class Log:
    """The server's log of polls, each by the tab that it came from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("")

    def tabs(self) -> list[str]:
        lines = [line for line in self.path.read_text().splitlines() if "GET /belfry/notifications/unread" in line]
        return [found[1] for line in lines if (found := re.search(r"\?tab=(\d+)", line))]

    def since(self, count: int, polls: int) -> list[str]:
        """Which tabs the next polls came from, after the first `count`."""
        return wait_until(lambda: len(self.tabs()) >= count + polls and self.tabs()[count:], f"{polls} polls")


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str, Path]]:
    path = tmp_path_factory.mktemp("log") / "access.log"
    with same_origin(GUNICORN_CMD_ARGS=f"--access-logfile {path}") as (service, host):
        yield service, host, path


@pytest.fixture
def service(hosted: tuple[Service, str, Path]) -> Service:
    engine = sqlalchemy.create_engine(hosted[0].database_url)
    empty(engine)
    engine.dispose()
    hosted[0].add_user("ada")
    return hosted[0]


@pytest.fixture
def log(hosted: tuple[Service, str, Path]) -> Log:
    return Log(hosted[2])


@pytest.fixture
def open_bell(chromium: Browser, hosted: tuple[Service, str, Path], service: Service) -> Iterator[OpenBell]:
    with bells(chromium, service, hosted[1]) as open_bell:
        yield open_bell


def test_five_tabs_are_one_poller_and_the_next_tab_takes_over(service: Service, log: Log, open_bell: OpenBell) -> None:
    tabs: list[Bell] = [open_bell(at="?tab=0")]
    tabs += [open_bell(beside=tabs[0], at=f"?tab={number}#hidden") for number in range(1, 5)]
    wait_until(lambda: set(log.tabs()) == set("01234"), "each tab has asked once, to learn who is signed in")
    assert set(log.since(len(log.tabs()), 3)) == {"0"}
    service.send("ada", title="For all tabs")
    for tab in tabs:
        expect(tab.badge).to_have_text("1")
    assert [log.tabs().count(number) for number in "1234"] == [1, 1, 1, 1]

    # A tab that is looked at takes the lead.
    tabs[0].page.evaluate("setHidden(true)")
    tabs[3].page.evaluate("setHidden(false)")
    polled = len(log.tabs())
    assert set(log.since(polled, 3)) == {"3"}

    # The leader's death hands over within one interval, here to one that nobody looks at.
    polled = len(log.tabs())
    tabs[3].page.close()
    (heir,) = set(log.since(polled, 1))
    assert heir in "0124"

    # A local action in one tab is seen in the others, and asked for once.
    tabs[1].page.evaluate("setHidden(false)")
    tabs[1].open()
    for tab in (tabs[0], tabs[2], tabs[4]):
        expect(tab.badge).to_be_hidden()


def test_two_tabs_in_sight_are_one_poller_too(log: Log, open_bell: OpenBell) -> None:
    first = open_bell(at="?tab=1")
    second = open_bell(beside=first, at="?tab=2")
    second.wait_for_polls(2)
    polled = len(log.tabs())
    assert set(log.since(polled, 3)) == {"2"}
    # The leader goes out of sight: the one that is still in sight takes over.
    second.page.evaluate("setHidden(true)")
    first.wait_for_polls(1)
    polled = len(log.tabs())
    assert set(log.since(polled, 3)) == {"1"}


def test_a_server_that_is_gone_is_asked_less_and_less_until_it_is_back(service: Service, open_bell: OpenBell) -> None:
    bell = open_bell().open()
    bell.page.clock.install()
    bell.wait_for_polls(1)
    asked: list[float] = []
    bell.page.on("request", lambda request: POLL.search(request.url) and asked.append(request.timing["startTime"]))
    service.stop()
    for _ in range(20):
        bell.page.clock.run_for(3_000)
    assert 2 <= len(asked) < 30
    expect(bell.panel.get_by_text(re.compile("^Not updated since"))).to_be_visible()
    service.url, outside = f"http://127.0.0.1:{service.port}", service.url
    service.start()
    service.url = outside
    service.send("ada", title="Missed")
    wait_until(lambda: bell.page.clock.run_for(10_000) or bell.rows.count() == 1, "the list repairs itself")
    expect(bell.panel.get_by_text(re.compile("^Not updated since"))).to_have_count(0)


@pytest.mark.parametrize("missing", ["navigator.locks", "BroadcastChannel"])
def test_without_locks_or_channels_each_page_polls_for_itself(open_bell: OpenBell, missing: str) -> None:
    first = open_bell()
    owner, _, name = missing.rpartition(".")
    first.page.context.add_init_script(f"""
        Object.defineProperty({owner or "globalThis"}, '{name}', {{ value: undefined }});""")
    first.go()
    second = open_bell(beside=first)
    for tab in (first, second):
        tab.wait_for_polls(2)


def test_a_page_from_the_back_forward_cache_is_fresh(
    chromium: Browser, hosted: tuple[Service, str, Path], service: Service
) -> None:
    caching = chromium.browser_type.launch(
        executable_path=next(filter(None, map(shutil.which, NAMES)), None),
        args=ARGUMENTS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    with bells(caching, service, hosted[1]) as open_bell:
        bell = open_bell()
        bell.page.evaluate("addEventListener('pageshow', ({ persisted }) => { window.kept = persisted; })")
        bell.wait_for_polls(1)
        bell.page.get_by_role("link", name="Next note").click()
        bell.page.wait_for_url("**/notes/7")
        service.send("ada", title="Meanwhile")
        bell.page.go_back(wait_until="commit")
        expect(bell.badge).to_have_text("1")
        assert bell.page.evaluate("window.kept") is True
        bell.wait_for_polls(2)
    caching.close()
