"""The bell in several languages: everything is said, plurals and dates are the language's own, hosts may replace it."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests import postgres
from tests.bells import bells
from tests.service import Service

SCRIPTS = postgres.ROOT / "static/js"


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Page:
    def serve(route: Route) -> None:
        file = SCRIPTS / route.request.url.removeprefix("http://words.test/")
        if file.suffix == ".js":
            route.fulfill(content_type="text/javascript", body=file.read_text())
        else:
            route.fulfill(content_type="text/html", body="<!doctype html><title>words</title>")

    page = chromium.new_page()
    page.route("**/*", serve)
    page.goto("http://words.test/")
    return page


def dictionary(page: Page, language: str) -> Any:
    if language == "en":
        parts = "[(await import('/words.js')).english, (await import('/words/panel.js')).english]"
    else:
        parts = f"[(await import('/words/{language}.js')).default]"
    return page.evaluate(f"async () => Object.assign({{}}, ...{parts})")


LANGUAGES = ["ar", "de"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_with_the_same_gaps(page: Page, language: str) -> None:
    english, words = dictionary(page, "en"), dictionary(page, language)
    assert set(words) == set(english)
    for key, phrase in words.items():
        gaps = set(re.findall(r"\{\w+\}", json.dumps(english[key])))
        assert set(re.findall(r"\{\w+\}", json.dumps(phrase))) == gaps, key
    assert words["language"] == language


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_every_plural_of_the_language_is_there(page: Page, language: str) -> None:
    categories = set(page.evaluate(f"new Intl.PluralRules('{language}').resolvedOptions().pluralCategories"))
    for key, phrase in dictionary(page, language).items():
        if isinstance(phrase, dict):
            assert "other" in phrase, key
            assert set(phrase) <= categories, key
            if language == "ar":
                assert categories - {"zero"} <= set(phrase), key


def test_all_languages_that_there_are_are_offered(page: Page) -> None:
    offered = page.evaluate("async () => (await import('/words.js')).translated")
    assert sorted(offered) == sorted(file.stem for file in (SCRIPTS / "words").glob("*.js") if file.stem != "panel")


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "إشعار جديد واحد"),
        (2, "إشعاران جديدان"),
        (3, "3 إشعارات جديدة"),
        (11, "11 إشعارًا جديدًا"),
        (100, "99+ إشعار جديد"),
    ],
)  # fmt: skip
def test_counts_are_said_as_the_language_has_it(page: Page, count: int, said: str) -> None:
    # Latin digits, for numbers are not what this is about.
    assert page.evaluate(
        """async ([count]) => {
            const { speaker } = await import('/words.js');
            const words = (await import('/words/ar.js')).default;
            return speaker(words, 'ar-u-nu-latn')('arrived', { count });
        }""",
        [count],
    ) == said  # fmt: skip


def test_a_text_with_braces_of_its_own_is_not_filled_in_again(page: Page) -> None:
    assert (
        page.evaluate("""async () => {
            const { speaker } = await import('/words.js');
            return speaker({ markRead: 'Mark as read: {title}' }, 'en')('markRead', { title: '{count} $& {title}' });
        }""")
        == "Mark as read: {count} $& {title}"
    )


def test_a_bell_speaks_the_language_of_its_page_or_its_own_or_the_hosts(
    chromium: Browser, hosted: tuple[Service, str]
) -> None:
    service, host = hosted
    service.send("ada", title="Eins", url="/notes/1", priority="high")
    with bells(chromium, service, host) as open_bell:
        bell = open_bell()
        asked: list[str] = []
        bell.page.on("request", lambda request: asked.append(request.url))
        bell.go()
        expect(bell.button).to_have_accessible_name("Notifications, 1 unread")
        assert not [url for url in asked if "/words/" in url]

        again = "bell => { const { parentNode } = bell; bell.remove(); parentNode.append(bell); }"
        bell.page.evaluate("document.documentElement.lang = 'de-AT'")
        bell.element.evaluate(again)
        expect(bell.button).to_have_accessible_name("Mitteilungen, 1 ungelesen")
        bell.button.click()
        expect(bell.element.locator("time")).to_have_text(re.compile("jetzt|vor"))
        expect(bell.element.get_by_role("button", name="Als gelesen markieren: Eins")).to_be_visible()

        bell.element.evaluate("bell => { bell.lang = 'ar'; }")
        bell.element.evaluate(again)
        expect(bell.button).to_have_accessible_name("الإشعارات، إشعار واحد غير مقروء")
        bell.button.click()
        archive = bell.element.get_by_role("button", name="أرشفة: Eins")
        expect(archive).to_be_visible()
        title = bell.titles.first.bounding_box()
        box = archive.bounding_box()
        assert title is not None
        assert box is not None
        assert box["x"] < title["x"]

        bell.element.evaluate("bell => { bell.lang = 'fr'; bell.words = { heading: 'Avis', seeAll: 'Tous' }; }")
        bell.element.evaluate(again)
        bell.button.click()
        expect(bell.element.get_by_role("region", name="Avis")).to_be_visible()
        expect(bell.element.get_by_role("link", name="Tous")).to_be_visible()
        expect(bell.element.get_by_role("button", name="Mark as read: Eins")).to_be_visible()
