"""The inbox page at `/` and its forms, as they are without JavaScript."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import inboxes
from tests.cast import Person
from tests.pages import InboxPage
from tests.rows import change
from tests.variants import another_app

Publish = Callable[..., Any]


@pytest.fixture
def three(alice: Person, publish: Publish) -> Person:
    """Alice with three comments, numbered 1 to 3."""
    for title in ("First", "Second", "Third"):
        publish("alice", title=title)
    return alice


def seen_by(person: Person) -> list[bool]:
    return [row["seen_at"] is not None for row in inboxes.rows(person)]


# What is shown


def test_everything_that_is_not_archived_is_listed_newest_first_and_what_is_unread_says_so(three: Person) -> None:
    three.post("/notifications/2/read")
    three.post("/notifications/1/archive")
    page = InboxPage(three)
    assert page.titles == ["Third", "Second"]
    assert ["Unread" in row.text for row in page.rows] == [True, False]
    assert page.main.find("h1", id="heading").text == "Notifications 1 unread"


@pytest.mark.parametrize(
    ("link", "titles"), [("All", ["Third", "Second"]), ("Unread", ["Third"]), ("Archived", ["First"])]
)
def test_a_link_filters_by_state_and_is_marked_as_the_present_one(three: Person, link: str, titles: list[str]) -> None:
    three.post("/notifications/2/read")
    three.post("/notifications/1/archive")
    page = InboxPage(three).follow(link)
    assert page.titles == titles
    assert page.main.find("a", **{"aria-current": "page"}).text == link


def test_a_link_filters_by_type_among_those_that_the_reader_has(
    alice: Person, mallory: Person, publish: Publish
) -> None:
    publish("alice", title="A", type="comment")
    publish("alice", title="B", type="status_change")
    publish("mallory", title="C", type="secret")
    page = InboxPage(alice)
    kinds = page.main.find("ul", class_="types")
    assert [link.text for link in kinds.find_all("a")] == ["Every kind", "comment", "status change"]
    assert page.follow("status change").titles == ["B"]
    assert page.follow("status change").follow("Archived").titles == []
    assert page.follow("status change").follow("Every kind").titles == ["B", "A"]


def test_one_type_alone_is_no_choice(three: Person) -> None:
    assert "Every kind" not in InboxPage(three).links()


def test_a_type_whose_last_notification_has_expired_is_not_offered(alice: Person, publish: Publish) -> None:
    publish("alice", type="comment")
    publish("alice", type="mention")
    publish("alice", type="alert")
    inboxes.expire(alice, 2)
    assert {"comment", "alert"} < InboxPage(alice).links().keys()
    assert "mention" not in InboxPage(alice).links()


def test_older_pages_are_reached_by_a_link_and_the_newest_from_there(alice: Person) -> None:
    inboxes.fill(alice, 45)
    first = InboxPage(alice)
    second = first.follow("Older")
    third = second.follow("Older")
    ids = [[row.attributes["id"] for row in page.rows] for page in (first, second, third)]
    assert [len(page) for page in ids] == [20, 20, 5]
    assert list(chain(*ids)) == [f"n{number}" for number in range(45, 0, -1)]
    assert ("Newest" in first.links(), "Older" in third.links()) == (False, False)
    assert third.follow("Newest").rows[0].attributes["id"] == "n45"


def test_filters_and_pages_keep_each_other(alice: Person, publish: Publish) -> None:
    for number in range(22):
        publish("alice", type="mention", title=f"Mention {number}")
        publish("alice", type="comment")
    page = InboxPage(alice).follow("Unread").follow("mention").follow("Older")
    assert page.titles == ["Mention 1", "Mention 0"]
    page = page.press("Mark as read: Mention 1")
    assert page.titles == ["Mention 0"]
    assert page.done.startswith("Marked as read.")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "You’re all caught up"),
        ("/?state=unread", "You’re all caught up"),
        ("/?state=archived", "Nothing archived"),
        ("/?type=alert", "Nothing of this kind"),
        ("/?state=archived&type=alert", "There is no archived alert here."),
        ("/?before=1", "Nothing older here"),
    ],
)
def test_an_empty_list_says_of_what_it_is_empty(alice: Person, path: str, words: str) -> None:
    page = InboxPage(alice, path)
    assert page.rows == []
    assert words in page.main.find("div", id="foot").text


@pytest.mark.parametrize(
    "query",
    [
        *("state=read", "state=", "type=", "before=0", "before=x", "before=9223372036854775808"),
        *("state=all&state=all", "done=x", "id=0", "undo=-1", "changed=x"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(alice: Person, query: str) -> None:
    assert alice.get(f"/?{query}").status_code == 422


def test_names_that_others_add_to_an_address_are_passed_over(three: Person) -> None:
    assert len(InboxPage(three, "/?utm_source=mail&state=unread&fbclid=x").rows) == 3


def test_whoever_is_not_signed_in_is_asked_to_and_comes_back_to_the_same_filter(anonymous: FlaskClient) -> None:
    answer = anonymous.get("/?state=archived&type=comment")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=/?state%3Darchived%26type%3Dcomment"


def test_what_expired_is_not_shown(three: Person) -> None:
    inboxes.expire(three, 2)
    assert InboxPage(three).titles == ["Third", "First"]


def test_of_others_nothing_is_shown(three: Person, mallory: Person) -> None:
    assert InboxPage(mallory).rows == []


def test_a_row_names_time_group_actor_and_importance(alice: Person, publish: Publish) -> None:
    for _ in range(3):
        publish(
            "alice", title="Reply", type="new_reply", group_key="g", priority="high", url="/t/1?a=1&b=2",
            actor={"name": "Grace Hopper"},
        )  # fmt: skip
    change("UPDATE events SET created_at = '2030-01-05 07:08:09+00'")
    row = InboxPage(alice).row("Reply")
    assert row.find("p", class_="facts").text == "Important Grace Hopper new reply and 2 earlier 5 Jan 2030, 07:08 UTC"
    assert row.find("time").attributes["datetime"] == "2030-01-05T07:08:09Z"
    assert row.find("a").attributes == {"href": "/t/1?a=1&b=2", "rel": "noopener noreferrer"}
    assert row.find("span", class_="arch").text == "GH"


def test_the_page_takes_three_statements_each_of_which_checks_the_reader(three: Person, queries: list[str]) -> None:
    InboxPage(three, "/?state=unread&type=comment")
    assert len(queries) == 3
    assert all("ended_sessions" in query for query in queries)


def test_looking_changes_nothing_and_sets_no_cookie(three: Person) -> None:
    before = inboxes.everything()
    for path in ("/", "/?state=unread", "/?done=archive&id=3", "/?done=read&changed=3&undo=3"):
        assert "Set-Cookie" not in three.get(path).headers
    assert inboxes.everything() == before


def test_text_that_was_never_cleaned_is_written_as_text(three: Person) -> None:
    change(
        "UPDATE events SET title = :bad, body_html = :bad, body_text = :bad, type = :bad, actor_name = :bad,"
        " url = :url",
        bad="<script>alert(1)</script><img src=x onerror=alert(1)><b onclick=x>bold</b>",
        url="javascript:alert(1)",
    )
    page = InboxPage(three)
    assert [list(page.main.find_all(tag)) for tag in ("script", "img")] == [[], []]
    assert "javascript:" not in page.html
    bold = page.rows[0].find("p", class_="body").find("b")
    assert (bold.text, bold.attributes) == ("bold", {})


# What buttons do


def test_marking_read_and_unread_leaves_the_row_and_leads_back_to_it(three: Person) -> None:
    page = InboxPage(three).press("Mark as read: Second")
    assert page.path.endswith("#n2")
    assert ["Unread" in row.text for row in page.rows] == [True, False, True]
    assert page.done == ""
    page = page.press("Mark as unread: Second")
    assert ["Unread" in row.text for row in page.rows] == [True, True, True]


def test_archiving_takes_the_row_away_and_leads_to_the_next_with_a_way_back(three: Person) -> None:
    page = InboxPage(three).press("Archive: Second")
    assert page.titles == ["Third", "First"]
    assert page.path.endswith("#n1")
    assert page.done == "Archived. Undo"
    assert page.press("Undo").titles == ["Third", "Second", "First"]


def test_archiving_the_last_row_leads_to_the_one_before(three: Person) -> None:
    assert InboxPage(three).press("Archive: First").path.endswith("#n2")


def test_among_the_unread_a_read_one_goes_with_a_way_back(three: Person) -> None:
    page = InboxPage(three, "/?state=unread").press("Mark as read: Third")
    assert page.titles == ["Second", "First"]
    assert page.done == "Marked as read. Undo"
    page = page.press("Undo")
    assert page.titles == ["Third", "Second", "First"]
    assert page.path.startswith("/?state=unread")


def test_what_is_archived_can_be_moved_back_and_that_be_undone(three: Person) -> None:
    three.post("/notifications/archive", {"ids": [1, 2, 3]})
    page = InboxPage(three).follow("Archived").press("Move back to the inbox: Second")
    assert page.titles == ["Third", "First"]
    assert page.done == "Moved back to the inbox. Undo"
    assert page.press("Undo").titles == ["Third", "Second", "First"]


def test_all_are_marked_read_through_the_version_shown_and_that_is_undone(three: Person, publish: Publish) -> None:
    three.post("/notifications/1/read")
    stale = InboxPage(three)
    publish("alice", title="Later")
    page = stale.press("Mark all as read")
    assert page.done == "2 notifications marked as read. Undo"
    assert ["Unread" in row.text for row in page.rows] == [True, False, False, False]
    page = page.press("Undo")
    assert page.done == "Undone."
    assert ["Unread" in row.text for row in page.rows] == [True, True, True, False]


def test_all_are_archived_through_the_version_shown_and_that_is_undone(three: Person, publish: Publish) -> None:
    three.post("/notifications/1/read")
    stale = InboxPage(three)
    publish("alice", title="Later")
    page = stale.press("Archive all")
    assert page.titles == ["Later"]
    assert page.done == "3 notifications archived. Undo"
    assert page.press("Undo").titles == ["Later", "Third", "Second", "First"]


def test_a_button_for_many_is_there_only_where_it_does_what_it_says(three: Person) -> None:
    """Both act on all that is listed in the inbox, and so they stand on no page that shows a part of it."""
    many = {"Mark all as read", "Archive all"}
    three.post("/notifications/1/archive")
    expected = {"/": many, "/?state=unread": {"Mark all as read"}, "/?state=archived": set(), "/?type=comment": set()}
    assert {path: many & InboxPage(three, path).buttons().keys() for path in expected} == expected


def test_an_undo_that_comes_too_late_says_so(three: Person) -> None:
    page = InboxPage(three).press("Mark all as read")
    change("UPDATE undos SET at = at - interval '11 minutes'")
    page = page.press("Undo")
    assert page.done == "That can’t be undone any more."
    assert not any("Unread" in row.text for row in page.rows)


def test_what_moved_on_with_its_group_is_said_and_not_marked(alice: Person, publish: Publish) -> None:
    publish("alice", title="Old", group_key="g")
    stale = InboxPage(alice)
    publish("alice", title="New", group_key="g")
    page = stale.press("Archive: Old")
    assert page.done.startswith("That notification has changed or is over.")
    assert page.titles == ["New"]


def test_what_expired_meanwhile_is_said(three: Person) -> None:
    stale = InboxPage(three)
    inboxes.expire(three, 2)
    page = stale.press("Mark as read: Second")
    assert page.done.startswith("That notification has changed or is over.")


def test_pressed_twice_a_button_does_no_more(three: Person) -> None:
    stale = InboxPage(three)
    stale.press("Archive: Second")
    version = inboxes.version(three)
    assert stale.press("Archive: Second").titles == ["Third", "First"]
    stale.press("Mark all as read")
    assert stale.press("Mark all as read").done == ""
    assert inboxes.version(three) == version + 1


def test_every_button_answers_303_and_sets_no_cookie(three: Person) -> None:
    page = InboxPage(three, "/?done=read&changed=1&undo=1")
    assert len(page.buttons()) == 9
    for button in page.buttons():
        answer = page.submit(button)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (303, False)


def test_seen_is_a_form_of_the_scripts_and_reaches_as_far_as_the_page(three: Person, publish: Publish) -> None:
    page = InboxPage(three)
    publish("alice", title="Later")
    answer = three.browser.post(page.main.attributes["data-seen-url"], data=page.fields)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert seen_by(three) == [False, True, True, True]
    assert "data-seen-url" in InboxPage(three).main.attributes


@pytest.mark.parametrize("path", ["/?state=archived", "/?type=comment", "/?before=3"])
def test_a_page_that_shows_a_part_asks_for_nothing_to_be_seen(three: Person, path: str) -> None:
    assert "data-seen-url" not in InboxPage(three, path).main.attributes


def test_where_all_is_seen_nothing_is_to_be_marked_seen(three: Person) -> None:
    three.post("/notifications/seen", {"through": 3})
    assert "data-seen-url" not in InboxPage(three).main.attributes


# Whose buttons they are


def test_a_page_drawn_for_one_person_does_nothing_for_another(three: Person, mallory: Person, publish: Publish) -> None:
    for number in range(5):
        publish("mallory", title=f"For Mallory {number}")
    stale = InboxPage(three, "/?state=unread&done=read&changed=1&undo=1")
    addresses = [*stale.buttons().values(), stale.main.attributes["data-seen-url"]]
    before = inboxes.everything()
    for address in addresses:
        answer = mallory.browser.post(address, data=stale.fields)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert len(addresses) == 9
    assert inboxes.everything() == before


def test_a_form_that_names_nobody_does_nothing(three: Person) -> None:
    before = inboxes.everything()
    assert three.browser.post("/read", data={"through": "3"}).status_code == 303
    assert three.browser.post("/undo", data={"undo": "3"}).status_code == 303
    assert inboxes.everything() == before


def test_whoever_is_not_signed_in_changes_nothing(three: Person, anonymous: FlaskClient) -> None:
    page = InboxPage(three)
    before = inboxes.everything()
    for address in page.buttons().values():
        answer = anonymous.post(address, data=page.fields)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert inboxes.everything() == before


def test_a_form_of_another_site_is_refused(three: Person) -> None:
    page = InboxPage(three)
    before = inboxes.everything()
    for address in page.buttons().values():
        answer = three.browser.post(address, data=page.fields, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
    assert inboxes.everything() == before


@pytest.mark.parametrize(
    ("address", "changed"),
    [
        ("/read", {"through": ""}),
        ("/read", {"through": "-1"}),
        ("/read", {"through": "99999999999999999999"}),
        ("/read", {"through": "4"}),
        ("/unread", {}),
        ("/unarchive", {}),
        ("/read?id=0", {}),
        ("/read?id=1&id=2", {}),
        ("/read?id=1", {"state": "read"}),
        ("/read?id=1", {"before": "x"}),
        ("/undo?undo=x", {}),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(three: Person, address: str, changed: dict[str, str]) -> None:
    fields = {**InboxPage(three).fields, **changed}
    before = inboxes.everything()
    assert three.browser.post(address, data=fields).status_code == 422
    assert inboxes.everything() == before


def test_forms_are_forms(three: Person) -> None:
    assert three.browser.post("/read?id=1", json=InboxPage(three).fields).status_code == 415


@pytest.mark.parametrize("verb", ["read", "unread", "archive", "unarchive", "seen", "undo"])
def test_an_address_that_changes_something_is_not_to_be_looked_at(three: Person, verb: str) -> None:
    assert three.get(f"/{verb}?id=1").status_code == 405


# Where it lives


def test_under_a_path_every_address_carries_it(three: Person) -> None:
    inboxes.fill(three, 40)
    with another_app(public_url="http://localhost/belfry") as app, app.app_context():
        under = Person(app, "alice")
        page = InboxPage(under, "/belfry/?before=40&done=archive&id=1")
        stayed = page.press("Undo").path
    addresses = [*page.links().values(), *page.buttons().values()]
    addresses += [page.main.attributes[name] for name in ("data-address", "data-unread-url")]
    assert len(addresses) >= 16
    assert [address for address in [*addresses, stayed] if not address.startswith("/belfry/")] == []


def test_language_and_direction_are_said(three: Person) -> None:
    page = InboxPage(three)
    assert page.document.find("html").attributes == {"lang": "en", "dir": "ltr"}
    assert [row.find("h2").attributes["dir"] for row in page.rows] == ["auto"] * 3


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("https://pictures.example/grace.png", True),
        ("https://PICTURES.example/grace.png", True),
        ("/people/grace.png", True),
        ("http://127.0.0.1:8000/people/grace.png", True),
        ("https://evil.example/pixel.png", False),
        ("http://pictures.example/grace.png", False),
        ("https://pictures.example:8443/grace.png", False),
        ("https://pictures.example.evil.example/grace.png", False),
    ],
)
def test_a_picture_comes_from_an_allowed_origin_or_not_at_all(
    app: Flask, publish: Publish, image: str, shown: bool
) -> None:
    publish("alice", title="With a face", actor={"name": "Grace Hopper", "image": image})
    with another_app(image_origins=["https://pictures.example"]) as other:
        alice = Person(other, "alice")
        row = InboxPage(alice).row("With a face")
        answer, poll = alice.get("/"), alice.poll()

    assert [one.attributes["src"] for one in row.find_all("img")] == ([image] if shown else [])
    assert [one.attributes["alt"] for one in row.find_all("img")] == ([""] if shown else [])
    assert "GH" in row.text
    assert "img-src 'self' https://pictures.example;" in answer.headers["Content-Security-Policy"]
    assert poll.headers["X-Image-Origins"] == "https://pictures.example"


def test_unless_told_otherwise_pictures_come_from_the_service_itself_only(alice: Person, publish: Publish) -> None:
    publish("alice", title="With a face", actor={"name": "Grace Hopper", "image": "https://pictures.example/grace.png"})
    assert list(InboxPage(alice).row("With a face").find_all("img")) == []
    assert "img-src 'self';" in alice.get("/").headers["Content-Security-Policy"]
    assert "X-Image-Origins" not in alice.poll().headers
