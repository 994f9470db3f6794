"""A hundred attempts to run a script, through publishing and straight into the database: none gets anywhere."""

import json
from typing import Any

import pytest
import sqlalchemy
from playwright.sync_api import Browser, expect

from tests.bells import Bell, bells, send_all
from tests.service import Service
from tests.test_sanitize import PAYLOADS

# A NUL is refused at the door, and PostgreSQL cannot hold one.
STORABLE = [payload.replace("\0", "") for payload in PAYLOADS if payload.isascii() or payload.isprintable()]


def publish(service: Service) -> int:
    """All of them, by the way that senders take."""
    send_all(service, "ada", (
        {"title": f"{number} {payload}"[:200], "body": payload, "actor": {"name": f"A {payload}"[:100]},
         "data": {"text": payload}}
        for number, payload in enumerate(STORABLE)
    ))  # fmt: skip
    return len(STORABLE)


def smuggle(service: Service) -> int:
    """All of them past the first wall, in every column that has text."""
    engine = sqlalchemy.create_engine(service.database_url)
    with engine.begin() as connection:
        for payload in STORABLE:
            connection.execute(
                sqlalchemy.text("""
                    WITH person AS (
                        UPDATE users SET inbox_version = inbox_version + 1 RETURNING id, inbox_version
                    ), event AS (
                        INSERT INTO events (type, title, body_text, body_html, url, actor_name, actor_url, actor_image,
                            data, priority, received, expires_at)
                        VALUES (:text, :text, :text, :text, :text, :text, :text, :text,
                            CAST(:data AS jsonb), 'high', 1, now() + interval '1 day') RETURNING id
                    )
                    INSERT INTO notifications (user_id, id, event_id, expires_at)
                    SELECT person.id, person.inbox_version, event.id, now() + interval '1 day' FROM person, event"""),
                {"text": payload, "data": json.dumps({"text": payload})},
            )
    engine.dispose()
    return len(STORABLE)


def show_all(bell: Bell, count: int) -> None:
    bell.open()
    for shown in range(20, count, 20):
        expect(bell.rows).to_have_count(shown)
        bell.press("Show older")
    expect(bell.rows).to_have_count(count)


def dangerous(bell: Bell) -> Any:
    """What is in the page that should not be."""
    return bell.page.evaluate("""() => {
        const roots = [document, ...[...document.querySelectorAll('*')].map((one) => one.shadowRoot).filter(Boolean)];
        const all = roots.flatMap((root) => [...root.querySelectorAll('*')]);
        const own = location.origin + '/';
        return all.filter((element) => (element.hasAttribute('href') && element.href && !/^https?:/.test(element.href))
            || (element.localName === 'script' && !element.src.startsWith(own))
            || ['iframe', 'object', 'embed', 'base', 'form', 'style', 'math', 'video', 'audio', 'meta']
                .includes(element.localName) && element.getRootNode() !== document
            || element.getAttributeNames().some((name) => name.startsWith('on') || name === 'srcdoc'))
            .map((element) => element.outerHTML);
    }""")


@pytest.mark.parametrize("way", [publish, smuggle])
def test_no_script_runs_no_policy_is_touched_and_no_request_leaves(
    chromium: Browser, hosted: tuple[Service, str], way: Any
) -> None:
    assert len(STORABLE) >= 100
    service, host = hosted
    count = way(service)
    with bells(chromium, service, host) as open_bell:  # fails for any dialog, error or report of the policy
        bell = open_bell()
        asked: list[str] = []
        bell.page.on("request", lambda request: asked.append(request.url))
        bell.go()
        show_all(bell, count)
        assert dangerous(bell) == []
        bell.page.goto(f"{service.url}/")
        expect(bell.page.locator("#list > li").first).to_be_visible()
        assert dangerous(bell) == []
        assert [url for url in asked if not url.startswith(f"{host}/")] == []
