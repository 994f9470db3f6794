"""A backup is taken while the service goes on, and restored by the commands of docs/operations.md; bells load anew."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from tests import host_network, postgres, web
from tests.bells import Bell, sign_in
from tests.documents import blocks
from tests.host_pages import program
from tests.service import Service, free_port

PAGE = postgres.ROOT / "docs/operations.md"
DUMP, RESTORE, EPOCH = (
    next(block for block in blocks(PAGE, "sh") if block.startswith(beginning))
    for beginning in ("pg_dump", "createdb", "export EPOCH")
)


class Installation:
    """A service whose database can be dumped, lost, and restored beside it."""

    def __init__(self, url: str, folder: Path, **settings: str) -> None:
        self.service = Service(url, POLL_INTERVAL="1", **settings)
        self.folder = folder
        self.restored = f"{sqlalchemy.make_url(url).database}_restored"

    def run(self, script: str) -> None:
        """Runs a block of the docs as an operator does."""
        url = self.service.database_url
        restored = sqlalchemy.make_url(url).set(database=self.restored).render_as_string(hide_password=False)
        programs = str(postgres.program("pg_dump", url).parent)
        script = script.replace("belfry_restored", self.restored).replace("belfry.dump", str(self.folder / "dump"))
        done = subprocess.run(
            ["/bin/sh", "-eu"],
            input=script.replace("--owner=belfry ", f"--owner={sqlalchemy.make_url(url).username} "),
            cwd=postgres.ROOT,
            env={
                **self.service.environment,
                "ADMIN_URL": postgres.plain(url),
                "DATABASE_URL": postgres.plain(url),
                "RESTORED_URL": postgres.plain(restored),
                "PATH": f"{programs}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def use_the_restored(self, **settings: str) -> None:
        """Restarts the service on the restored database, at the same address."""
        self.service.stop()
        del self.service.__dict__["operator"]
        url = sqlalchemy.make_url(self.service.database_url).set(database=self.restored)
        self.service.database_url = url.render_as_string(hide_password=False)
        self.service.environment |= {"DATABASE_URL": self.service.database_url, **settings}
        self.service.start()


@contextmanager
def installation(folder: Path, **settings: str) -> Iterator[Installation]:
    with postgres.database() as url:
        installed = Installation(url, folder, **settings)
        try:
            installed.service.start()
            yield installed
        finally:
            installed.service.stop()
            with postgres.connect(os.environ[postgres.SERVER]) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {installed.restored} WITH (FORCE)".encode())


def poll(browser: web.Browser, tag: str | None = None) -> web.Answer:
    return browser.open("/notifications/unread", **({"If_None_Match": tag} if tag else {}))


def tag_of(answer: web.Answer) -> str:
    return str(answer.headers["ETag"])


def titles(answer: web.Answer) -> list[str]:
    return [notification["title"] for notification in answer.json()["notifications"]]


@pytest.mark.parametrize("epoch", ["as documented", "forgotten"])
def test_after_a_restore_no_tag_of_before_is_true_if_the_epoch_is_new(tmp_path: Path, epoch: str) -> None:
    settings = {} if epoch == "forgotten" else dict([EPOCH.strip().removeprefix("export ").split("=")])
    with installation(tmp_path) as installed:
        service = installed.service
        for subject in ("ada", "grace", "charles"):
            service.add_user(subject)
        service.send("ada", "grace", "charles", title="kept")
        browsers = {subject: host_network.signed_in(service, subject) for subject in ("ada", "grace", "charles")}
        seen = {subject: [tag_of(poll(browser))] for subject, browser in browsers.items()}

        installed.run(DUMP)
        service.send("ada", title="lost")
        browsers["grace"].post("/notifications/read", {"through": 1})
        service.send("dora", title="to somebody who is lost too")
        for subject, browser in browsers.items():
            seen[subject].append(tag_of(poll(browser)))
        installed.run(RESTORE)
        installed.use_the_restored(**settings)
        service.send("ada", title="new")

        answers = {who: [poll(browsers[who], tag) for tag in seen[who]] for who in browsers}

    # Ada's inbox is at version 2 once more, and it is another one.
    statuses = {who: [answer.status for answer in polls] for who, polls in answers.items()}
    if epoch == "forgotten":
        assert statuses["ada"] == [200, 304]
        return
    assert statuses == {"ada": [200, 200], "grace": [200, 200], "charles": [200, 200]}
    for polls in answers.values():
        assert {tag_of(answer) for answer in polls}.isdisjoint(tag for tags in seen.values() for tag in tags)
    assert [titles(answers[who][1]) for who in ("ada", "grace", "charles")] == [["new", "kept"], ["kept"], ["kept"]]


def test_a_bell_that_stays_open_shows_what_was_restored(tmp_path: Path, chromium: Chromium) -> None:
    port = free_port()
    with (
        installation(tmp_path, PUBLIC_URL=f"http://127.0.0.1:{port}/belfry") as installed,
        program("host.py", port, "same-origin", installed.service.url) as host,
    ):
        service = installed.service
        service.add_user("ada")
        service.send("ada", title="kept")
        installed.run(DUMP)
        service.send("ada", title="lost")
        context = chromium.new_context()
        bell = Bell(context.new_page(), host)
        service.url = f"{host}/belfry"
        sign_in(context, service, "ada")
        bell.go()
        bell.button.click()
        expect(bell.element.get_by_text("lost")).to_be_visible()

        installed.run(RESTORE)
        installed.use_the_restored(EPOCH="restored")
        service.send("ada", title="new")

        expect(bell.element.get_by_text("new", exact=True)).to_be_visible(timeout=30_000)
        expect(bell.element.get_by_text("kept")).to_be_visible()
        expect(bell.element.get_by_text("lost")).to_have_count(0)
        context.close()
