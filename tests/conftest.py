"""The fixtures: a real database, the app on it, and the cast: alice the owner, mallory who must see nothing."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy
from flask.testing import FlaskClient
from playwright import sync_api as playwright

from app import create_app, db, publishing
from app.events import Event
from app.models import metadata
from app.publishing import Order, Published
from app.settings import Settings
from app.validation import check
from tests import postgres
from tests.browser import browser
from tests.cast import Browser, Person
from tests.host_pages import same_origin
from tests.service import Service, running_service

_server: Any = None


def pytest_configure(config: pytest.Config) -> None:
    global _server
    if config.option.collectonly:
        return
    for name in Settings.model_fields:  # what a developer has set must not decide whether tests pass
        os.environ.pop(name.upper(), None)
        os.environ.pop(f"{name.upper()}_FILE", None)
    if "TEST_FAST_PATH" in os.environ:
        os.environ["FAST_PATH"] = os.environ["TEST_FAST_PATH"]
    if postgres.SERVER not in os.environ:  # else it is the controller's of this run, or that of tests/taken_out.py
        _server = postgres.server()
        _server.__enter__()


@pytest.hookimpl(optionalhook=True)  # tests/forked.py does without xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a good part of the tests waits, for a browser, a lock or a notice."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure(config: pytest.Config) -> None:
    if _server is not None:
        _server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def _database_url() -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def _app(_database_url: str) -> Iterator[flask.Flask]:
    app = create_app(database_url=_database_url, secret_key=postgres.SECRET_KEY, web_concurrency=1, log_level="warning")
    app.test_client_class = Browser
    yield app
    with app.app_context():
        db.engine().dispose()


@pytest.fixture
def app(_app: flask.Flask) -> Iterator[flask.Flask]:
    """The app with empty tables, in its context."""
    with _app.app_context():
        empty(db.engine())
        yield _app


@pytest.fixture
def another_app(app: flask.Flask) -> Iterator[Callable[..., flask.Flask]]:
    """Makes the app with other settings on the same database: `another_app(poll_limit="3 per minute")`."""
    made: list[flask.Flask] = []

    def make(**settings: Any) -> flask.Flask:
        url = db.engine().url.render_as_string(hide_password=False)
        usual = {"database_url": url, "secret_key": postgres.SECRET_KEY, "web_concurrency": 1, "log_level": "warning"}
        another = create_app(**{**usual, **settings})
        another.test_client_class = Browser
        made.append(another)
        return another

    yield make
    for another in made:
        with another.app_context():
            db.engine().dispose()


@pytest.fixture
def anonymous(app: flask.Flask) -> FlaskClient:
    """Somebody who is not signed in."""
    return app.test_client()


@pytest.fixture
def alice(app: flask.Flask) -> Person:
    """The owner of what the tests are about."""
    return Person(app, "alice")


@pytest.fixture
def mallory(app: flask.Flask) -> Person:
    """Signed in, active, curious; must see nothing of alice's."""
    return Person(app, "mallory")


@pytest.fixture
def publish(app: flask.Flask) -> Callable[..., Published]:
    """Publishes an event as a sender does: `publish("alice", title="…", group_key="…")`."""

    def publish(*recipients: str, ttl: timedelta = timedelta(days=30), **fields: Any) -> Published:
        event = check(Event, {"type": "comment", "title": "A comment", **fields})
        [published] = db.write(publishing.publish, [Order(event, recipients)], ttl)
        return published

    return publish


@pytest.fixture
def queries(app: flask.Flask) -> Iterator[list[str]]:
    """Every statement that the app sends to the database from here on."""
    with postgres.statements(db.engine()) as sent:
        yield sent


@pytest.fixture(scope="session")
def _service() -> Iterator[Service]:
    with running_service(WEB_CONCURRENCY="2", POLL_INTERVAL="1") as service:
        yield service


@pytest.fixture
def service(_service: Service) -> Service:
    """The real service: gunicorn with two workers on a database of its own, its tables empty."""
    engine = sqlalchemy.create_engine(_service.database_url)
    empty(engine)
    engine.dispose()
    return _service


@pytest.fixture(scope="session")
def chromium() -> Iterator[playwright.Browser]:
    """One Chromium for all tests of a process; each opens contexts of its own in it."""
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def _hosted() -> Iterator[tuple[Service, str]]:
    with same_origin(IMAGE_ORIGINS="https://pictures.example") as hosted:
        yield hosted


@pytest.fixture
def hosted(_hosted: tuple[Service, str]) -> tuple[Service, str]:
    """A product's site with a bell, and the real service under a path of it: nobody but ada, nothing sent."""
    service, _ = _hosted
    engine = sqlalchemy.create_engine(service.database_url)
    empty(engine)
    engine.dispose()
    service.add_user("ada")
    return _hosted


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a fresh clone after the installation, with an `instance` of its own."""
    for name in ("app", "migrations", "static", "templates"):
        shutil.copytree(postgres.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "Makefile",
        "gunicorn.conf.py",
        "wsgi.py",
        *(path.name for path in postgres.ROOT.glob("requirements*")),
    ):
        shutil.copy(postgres.ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv/run.txt").touch()
    return tmp_path


def empty(engine: sqlalchemy.Engine) -> None:
    # Identities go on counting: a worker remembers the polls of user 1, and the next test's user is another one.
    with engine.begin() as connection:
        if connection.execute(sqlalchemy.text("SELECT count(*) > 20000 FROM notifications")).scalar_one():
            connection.execute(sqlalchemy.text(f"TRUNCATE {', '.join(metadata.tables)} CONTINUE IDENTITY"))
        # Of a few rows this takes a thirtieth of the time: TRUNCATE makes the files of every table and index anew.
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
