"""A small browser without JavaScript for the app's own pages: it reads a page's parts and presses its buttons."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from werkzeug.test import TestResponse

from tests.cast import Person

VOID = {"link", "meta", "input", "br", "path", "img"}


@dataclass
class Element:
    """An element with what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else c.text for c in self.children).split())

    def find_all(self, tag: str, **attributes: str) -> Iterator["Element"]:
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and all(child.attributes.get(k.rstrip("_")) == v for k, v in attributes.items()):
                    yield child
                yield from child.find_all(tag, **attributes)

    def find(self, tag: str, **attributes: str) -> "Element":
        found = list(self.find_all(tag, **attributes))
        assert len(found) == 1, f"{len(found)} of {tag} {attributes}"
        return found[0]


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


class InboxPage:
    """The inbox page as a person gets it."""

    def __init__(self, person: Person, path: str = "/") -> None:
        self.person = person
        self.path = path
        answer = person.get(path)
        assert answer.status_code == 200, answer.text
        tree = _Tree()
        tree.feed(answer.text)
        self.html = answer.text
        self.document = tree.open[0]
        self.main = self.document.find("main", id="inbox")

    @property
    def titles(self) -> list[str]:
        return [row.find("h2").text for row in self.rows]

    @property
    def rows(self) -> list[Element]:
        return list(self.main.find("ul", id="list").find_all("li"))

    @property
    def done(self) -> str:
        return self.main.find("div", id="done").text

    def row(self, title: str) -> Element:
        [row] = [row for row in self.rows if row.find("h2").text == title]
        return row

    def links(self) -> dict[str, str]:
        return {link.text: link.attributes["href"] for link in self.main.find_all("a")}

    def buttons(self) -> dict[str, str]:
        """The buttons of the form by their names, with the addresses that they send it to."""
        found = self.main.find_all("button", form="act")
        return {button.text: button.attributes["formaction"] for button in found}

    @property
    def fields(self) -> dict[str, str]:
        inputs = self.main.find("form", id="act").find_all("input")
        return {one.attributes["name"]: one.attributes["value"] for one in inputs}

    def follow(self, link: str) -> "InboxPage":
        return InboxPage(self.person, self.links()[link])

    def submit(self, button: str, by: Person | None = None, **changed: Any) -> TestResponse:
        """What a button's form is answered with, sent by this page's person or by somebody else."""
        return (by or self.person).browser.post(self.buttons()[button], data={**self.fields, **changed})

    def press(self, button: str) -> "InboxPage":
        """The page to which a button leads."""
        answer = self.submit(button)
        assert answer.status_code == 303, answer.text
        parts = urlsplit(answer.headers["Location"])
        return InboxPage(self.person, f"{parts.path}?{parts.query}#{parts.fragment}")
