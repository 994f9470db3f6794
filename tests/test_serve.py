"""`make run`: two words, and there is a bell; Ctrl-C, and there is nothing."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests import postgres
from tests.postgres import SECRET_KEY as KEY
from tests.service import answers, free_port, wait_until
from tests.web import Browser


class Run:
    """`make run` in a terminal of its own."""

    def __init__(self, checkout: Path, port: int, **settings: str) -> None:
        self.checkout = checkout
        self.url = f"http://127.0.0.1:{port}"
        self.output = checkout / "output.txt"
        environment = {**self.environment(), **settings}
        with self.output.open("w") as file:
            # A session of its own, as a terminal has it: Ctrl-C goes to all of its processes at once.
            self.process = subprocess.Popen(
                ["make", "run", f"PORT={port}"],
                cwd=checkout,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @staticmethod
    def environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "SECRET_KEY")}

    def greeting(self) -> str:
        def greeted() -> str | None:
            assert self.process.poll() is None, self.output.read_text()
            return text if "Ctrl-C" in (text := self.output.read_text()) else None

        return str(wait_until(greeted, "make run says that it is ready", 60))

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=60)


@contextlib.contextmanager
def running(checkout: Path, **settings: str) -> Iterator[Run]:
    run = Run(checkout, free_port(), **settings)
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            run.press_ctrl_c()


def processes_of(checkout: Path) -> list[str]:
    """The processes that work in or on this folder."""
    found = psutil.process_iter(["cwd", "cmdline"])
    described = [f"{process.info['cwd']} {process.info['cmdline']}" for process in found]
    return [description for description in described if str(checkout) in description]


def send(checkout: Path, *arguments: str) -> str:
    """What `flask send` says in another terminal."""
    command = [".venv/bin/flask", "send", *arguments]
    done = subprocess.run(command, cwd=checkout, env=Run.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_prints_an_address_a_link_that_signs_in_and_a_command_that_rings(checkout: Path) -> None:
    with running(checkout) as run:
        greeting = run.greeting()
        link = re.search(rf"{run.url}/tickets/\S+", greeting)
        assert link, greeting
        browser = Browser(run.url)
        browser.submit(link.group())
        before = browser.poll()["unread_count"]
        command = re.search(r'\.venv/bin/flask send (\S+) --type (\S+) --title "(.+)"', greeting)
        assert command, greeting
        send(checkout, command[1], "--type", command[2], "--title", command[3])
        content = browser.poll()
    assert content["unread_count"] == before + 1
    assert content["notifications"][0]["title"] == command[3]


def test_ctrl_c_leaves_no_process_and_the_next_run_finds_its_data(checkout: Path) -> None:
    with running(checkout) as run:
        run.greeting()
        send(checkout, "ada", "--type", "comment", "--title", "Still here tomorrow")
        run.press_ctrl_c()
        assert not processes_of(checkout)
        assert not answers(run.url)
    with running(checkout) as run:
        browser = Browser(run.url)
        browser.submit(re.search(rf"{run.url}/tickets/\S+", run.greeting()).group())  # type: ignore[union-attr]
        assert browser.poll()["notifications"][0]["title"] == "Still here tomorrow"


def test_commands_work_when_nothing_runs(checkout: Path) -> None:
    with running(checkout) as run:
        run.greeting()
    assert send(checkout, "ada", "--type", "comment", "--title", "Alone").startswith("Published event")
    assert not processes_of(checkout)


def test_nobody_to_sign_in_is_no_reason_not_to_serve(checkout: Path) -> None:
    with running(checkout) as run:
        run.greeting()
        for subject in ("ada", "grace"):
            command = [".venv/bin/flask", "user", "disable", subject]
            subprocess.run(command, cwd=checkout, env=Run.environment(), check=True, capture_output=True)
    with running(checkout) as run:
        assert "/tickets/" not in run.greeting()
        run.press_ctrl_c()
        assert not processes_of(checkout)


def test_a_taken_port_is_said_in_one_line(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = Run(checkout, port)
        assert run.process.wait(timeout=60) != 0
    assert f"port {port} is taken" in run.output.read_text()
    assert "Traceback" not in run.output.read_text()


def test_with_a_server_named_it_starts_none(checkout: Path) -> None:
    with postgres.database(migrated=False) as url, running(checkout, DATABASE_URL=url, SECRET_KEY=KEY) as run:
        run.greeting()
        assert not (checkout / "instance/postgres").exists()


def test_a_server_without_a_secret_key_is_refused_by_name(checkout: Path) -> None:
    run = Run(checkout, free_port(), DATABASE_URL="postgresql://nowhere/belfry")
    assert run.process.wait(timeout=60) != 0
    assert "SECRET_KEY: must be set when DATABASE_URL is set" in run.output.read_text()
    assert "Traceback" not in run.output.read_text()
