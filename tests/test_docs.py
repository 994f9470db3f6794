"""The docs are true: what they show is run, and what there is, is in them.

A `console` block is run line by line, its output compared; an `http` block is sent, its answer compared. `…` stands for
anything.
"""

import contextlib
import importlib
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import flask
import pytest

from app import cli, cli_keys, cli_people, settings
from docs import configuration
from tests import postgres
from tests.cast import Person
from tests.commands import run
from tests.documents import PAGES, blocks, hold, pattern
from tests.variants import another_app


def with_commands() -> list[Path]:
    return [page for page in PAGES if blocks(page, "console") and page.name != "curl.md"]


@pytest.mark.parametrize("page", with_commands(), ids=lambda page: page.name)
def test_every_command_of_the_docs_prints_what_they_say(app: flask.Flask, page: Path, checkout: Path) -> None:
    for lines in blocks(page, "json"):
        (checkout / "events.jsonl").write_text(lines)
    commands = [
        found
        for block in blocks(page, "console")
        for found in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]
    with postgres.database() as url, another_app(database_url=url) as operators, contextlib.chdir(checkout):
        if page.name == "tutorial.md":  # its reader has begun with `make run`, which makes sample people
            run(operators, "demo")
        for command, expected in commands:
            program, *arguments = shlex.split(command)
            # The README's are typed into a shell; for the others it is enough that that works.
            if page.name == "README.md" or program != ".venv/bin/flask":
                environment = postgres.environment(url)
                done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
                said, trouble = done.stdout, done.stderr
            else:
                result = run(operators, *arguments)
                said, trouble = result.stdout, result.stderr
            assert pattern(expected).fullmatch(said.strip()), (command, said, trouble)


@pytest.fixture
def ada(app: flask.Flask, publish: Callable[..., Any]) -> Person:
    """The inbox that docs/api.md shows."""
    ada = Person(app, "ada")
    publish("ada", type="mention", title="Charles mentioned you", priority="high")
    comment = {"title": "Grace commented on “Note G”", "actor": {"name": "Grace Hopper"}, "group_key": "note-g"}
    publish("ada", **comment, body="Look at <code>B1</code>.", url="/notes/g#3")
    publish("ada", **comment, body="Never <b>mind</b>.", url="/notes/g#4")
    publish("ada", type="release", title="Version 2 is out", url="https://example.com/releases/2", data={"version": 2})
    return ada


def test_every_request_of_the_api_page_is_answered_as_it_shows(ada: Person) -> None:
    assert hold(postgres.ROOT / "docs/api.md", ada.browser.open) >= 8


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert configuration.PAGE.read_text() == configuration.page()
    for name in settings.Settings.model_fields:
        assert f"`{name.upper()}`" in configuration.PAGE.read_text()


def test_every_route_of_the_api_is_on_its_page(app: flask.Flask) -> None:
    page = (postgres.ROOT / "docs/api.md").read_text()
    verbs = {"/notifications", "/notifications/unread", "/notifications/undo"}
    assert "/preferences" in page
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/notifications"):
            last = rule.rule.rsplit("/", 1)[-1]
            assert rule.rule in verbs or last == "<int:id>" or f"/{last}`" in page, rule
            assert rule.rule not in verbs or rule.rule in page


def test_every_command_is_in_the_docs(app: flask.Flask) -> None:
    text = "".join(page.read_text() for page in PAGES)
    commands: list[str] = [f"flask user {name}" for name in cli_people.user.commands]
    commands += [f"flask key {name}" for name in cli_keys.key.commands]
    commands += [f"flask {command.name}" for command in vars(cli).values() if isinstance(command, click.Command)]
    missing = [command for command in commands if command not in text]
    assert not missing


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), (page.name, target)


def test_every_file_that_the_docs_name_exists() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:app|docs|static|templates|migrations|tests|clients|examples|deploy)/[\w./-]+)`", page.read_text()
        ):
            assert (postgres.ROOT / name).exists() or (page.parent / name).exists(), (page.name, name)


def test_every_index_names_a_function_that_there_is() -> None:
    source = (postgres.ROOT / "app/models.py").read_text()
    named = re.findall(r"# .*?\b(inbox|marking|unread|people|publishing|idempotency|retention|limits)\.(\w+)", source)
    assert len(named) >= 15
    for module, name in named:
        assert hasattr(importlib.import_module(f"app.{module}"), name), (module, name)
