"""Workers whose clocks are an hour wrong: what is over is decided by the database's clock, which all of them share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.limits import SIGN_INS_PER_ACCOUNT
from tests import postgres
from tests.hosts import WireHost, make_key, query
from tests.programs import find
from tests.service import Service
from tests.web import Browser

HALF_AN_HOUR = "0.5"


class Hosts:
    """The service on three machines, with a right clock and with wrong ones, and one database."""

    def __init__(self, url: str) -> None:
        [library] = {*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")} if find("faketime") else {}
        self.all = {
            clock: Service(
                url,
                WEB_CONCURRENCY="1",
                SESSION_HOURS=HALF_AN_HOUR,
                **(
                    {"LD_PRELOAD": str(library), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
                    if clock
                    else {}
                ),
            )
            for clock in ("", "+1h", "-1h")
        }


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Service]]:
    with postgres.database() as url:
        hosts = Hosts(url).all
        try:
            for service in hosts.values():
                service.start()
            yield hosts
        finally:
            for service in hosts.values():
                service.stop()


@pytest.mark.parametrize("signed_in_at", ["", "+1h", "-1h"])
def test_a_session_is_good_until_its_end_whichever_clock_looks(hosts: dict[str, Service], signed_in_at: str) -> None:
    service = hosts[signed_in_at]
    service.add_user("ada")
    browser = Browser(service.url)
    assert browser.submit(hosts[""].link("ada").removeprefix(hosts[""].url)).status == 200

    # Cookies know no ports: the same browser goes to all three.
    for other in hosts.values():
        assert browser.open(f"{other.url}/notifications/unread").status == 200
        assert browser.open(f"{other.url}/notifications").status == 200
    [(cookie, until)] = [
        (cookie, float(str(until)))
        for cookie in browser.cookies
        for [until] in query(service.database_url, "SELECT extract(epoch FROM now()) + 1800")
    ]
    assert cookie.expires is not None
    assert cookie.expires > until - 60


@pytest.mark.parametrize("clock", ["", "+1h", "-1h"])
def test_what_expires_is_there_until_then(hosts: dict[str, Service], clock: str) -> None:
    service = hosts[clock]
    host = WireHost(service.url, make_key(service.database_url))
    [[soon]] = query(
        service.database_url, "SELECT to_char(now() + interval '10 minutes', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    )
    event = {"type": "comment", "title": "Soon over", "recipients": [f"reader{clock}"], "expires_at": soon}

    assert host.call("POST", "/events", event, Idempotency_Key="k").json()["created"] == 1

    browser = Browser(service.url)
    browser.submit(hosts[""].link(f"reader{clock}").removeprefix(hosts[""].url))
    for other in hosts.values():
        [notification] = browser.open(f"{other.url}/notifications/unread").json()["notifications"]
        assert notification["title"] == "Soon over"


@pytest.mark.parametrize("clock", ["+1h", "-1h"])
def test_who_must_wait_is_told_how_long(hosts: dict[str, Service], clock: str) -> None:
    browser = Browser(hosts[clock].url)
    for _time in range(SIGN_INS_PER_ACCOUNT.amount):
        browser.submit("/login", username=f"nobody{clock}", password="wrong")

    for service in (hosts[clock], hosts[""]):
        refused = Browser(service.url).submit("/login", username=f"nobody{clock}", password="wrong")
        assert refused.status == 429
        assert 0 < int(refused.headers["Retry-After"]) <= SIGN_INS_PER_ACCOUNT.get_expiry()
