"""`/readyz`: whether the database answers, with tables that this release works with. More: tests/test_bad_days.py."""

import time
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from app import readiness
from tests import postgres, rows

VERSIONS = postgres.ROOT / "migrations" / "versions"


def revisions() -> list[str]:
    """The revisions of this release, its own last."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(postgres.ROOT / "migrations"))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]


@pytest.fixture
def asked(app: flask.Flask) -> Any:
    """Asks a worker that has not been asked before, with the tables at a revision."""

    def ask(revision: str | None) -> Any:
        rows.change("DELETE FROM alembic_version")
        if revision is not None:
            rows.change("INSERT INTO alembic_version VALUES (:revision)", revision=revision)
        readiness.init_app(app)
        return app.test_client().get("/readyz")

    yield ask
    ask(revisions()[-1])


def test_with_its_own_tables_a_worker_is_ready(anonymous: FlaskClient) -> None:
    answer = anonymous.get("/readyz")

    assert (answer.status_code, answer.get_json()) == (200, {"status": "ready"})
    assert "no-store" in answer.headers["Cache-Control"]
    assert "Set-Cookie" not in answer.headers


def test_with_tables_of_an_older_release_it_is_not(asked: Any) -> None:
    for revision in revisions()[:-1]:
        answer = asked(revision)

        assert answer.status_code == 503
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json()["detail"] == readiness.OLD_TABLES
        assert answer.headers["Retry-After"] == "1"


def test_with_tables_of_a_newer_release_it_still_is(asked: Any) -> None:
    """While an upgrade goes round, workers of the old release serve on the new tables."""
    assert asked("9999").status_code == 200


def test_without_tables_it_is_not(asked: Any) -> None:
    assert asked(None).get_json()["detail"] == readiness.NO_TABLES
    rows.change("ALTER TABLE alembic_version RENAME TO elsewhere")
    try:
        readiness.init_app(flask.current_app)
        assert flask.current_app.test_client().get("/readyz").get_json()["detail"] == readiness.NO_TABLES
    finally:
        rows.change("ALTER TABLE elsewhere RENAME TO alembic_version")


def test_the_older_revisions_are_those_of_the_migrations() -> None:
    assert readiness.older_revisions(VERSIONS) == set(revisions()[:-1])


def test_a_revision_is_found_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("revision: str = 'ab12'\ndown_revision: str | None = \"cd34\"\n")
    (tmp_path / "b.py").write_text("revision = 'cd34'\ndown_revision = None\n")

    assert readiness.older_revisions(tmp_path) == {"cd34"}


def test_whoever_asks_without_a_pause_is_no_load(anonymous: FlaskClient, queries: list[str]) -> None:
    began = time.monotonic()
    for _time in range(50):
        assert anonymous.get("/readyz").status_code == 200

    assert len(queries) <= 1 + (time.monotonic() - began) / readiness.FRESH


def test_no_limit_counts_it(anonymous: FlaskClient) -> None:
    assert {anonymous.get("/readyz").status_code for _time in range(400)} == {200}


def test_nothing_is_said_of_the_inside(app: flask.Flask, another_app: Any) -> None:
    nowhere = another_app(database_url="postgresql+psycopg://belfry:secret@127.0.0.1:1/belfry")
    with nowhere.app_context():
        answer = nowhere.test_client().get("/readyz")

    assert answer.get_json()["detail"] == readiness.NO_ANSWER
    assert not {"secret", "127.0.0.1", "refused"} & set(answer.text.replace('"', " ").split())
