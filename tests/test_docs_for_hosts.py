"""The pages for hosts are true: their requests, their Python and their curl are run, and the answers compared."""

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app import db, keys, limits, people, people_api, publish_api
from docs import reference
from tests import host_network, postgres
from tests.documents import blocks, hold, pattern
from tests.service import Service

DOCS = postgres.ROOT / "docs"


@pytest.fixture
def key(app: flask.Flask) -> str:
    return db.write(keys.make, "host", list(keys.SCOPES))


def test_every_request_of_the_publishing_page_is_answered_as_it_shows(app: flask.Flask, key: str) -> None:
    db.write(people.save_user, "grace", None, None)

    assert hold(DOCS / "publishing.md", app.test_client().open, key=key) >= 10


def test_the_readmes_first_notification_is_published(app: flask.Flask, key: str) -> None:
    assert hold(postgres.ROOT / "README.md", app.test_client().open, key=key) == 1


def test_every_request_of_the_page_on_personal_data_is_answered_as_it_shows(
    app: flask.Flask, publish: Callable[..., Any], key: str
) -> None:
    db.write(people.save_user, "ada", "Ada Lovelace", None)
    publish("ada", title="Grace replied")

    assert hold(DOCS / "personal-data.md", app.test_client().open, key=key) == 2


def pair(private: Any) -> tuple[str, str]:
    """A private key and its public one, in PEM."""
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return secret.decode(), public.decode()


SECRET = "a shared secret of the tests, long enough"
PAIRS: dict[str, Callable[[], tuple[str, str]]] = {
    "HS256": lambda: (SECRET, SECRET),
    "RS256": lambda: pair(rsa.generate_private_key(65537, 2048)),
    "ES256": lambda: pair(ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": lambda: pair(ed25519.Ed25519PrivateKey.generate()),
}


@pytest.mark.parametrize("algorithm", PAIRS)
def test_the_ways_to_sign_in_work_as_their_page_shows(
    another_app: Callable[..., flask.Flask], key: str, algorithm: str
) -> None:
    page = DOCS / "signing-in.md"
    assert f"| `{algorithm}`" in page.read_text()
    private, public = PAIRS[algorithm]()
    app = another_app(jwt_key=public, jwt_algorithms=algorithm, cors_origins=["https://app.example"])
    minted: dict[str, Any] = {"key": private, "algorithm": algorithm}
    exec(blocks(page, "python")[0], minted)

    assert hold(page, app.test_client().open, key=key, token=minted["token"]) == 4


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"exp": 30}, 200),
        ({"exp": -50}, 200),
        ({"exp": -70}, 401),
        ({"exp": None}, 401),
        ({"sub": None}, 401),
        ({"nbf": 50, "iat": 50}, 200),
        ({"nbf": 70}, 401),
        ({"iat": 70}, 401),
        ({"aud": "belfry"}, 401),
        ({"iss": "anybody"}, 200),
    ],
)
def test_the_claims_of_a_token_count_as_their_table_says(
    another_app: Callable[..., flask.Flask], claims: dict[str, Any], status: int
) -> None:
    now = int(time.time())
    said = {"sub": "ada", "exp": 300, **claims}
    moments = {name: value + now if isinstance(value, int) else value for name, value in said.items()}
    token = jwt.encode({name: value for name, value in moments.items() if value is not None}, SECRET, "HS256")

    answer = (
        another_app(jwt_key=SECRET)
        .test_client()
        .get("/notifications/unread", headers={"Authorization": f"Bearer {token}"})
    )

    assert answer.status_code == status


def test_the_ten_lines_are_those_of_the_example() -> None:
    host = textwrap.dedent((postgres.ROOT / "examples/flask-host/flask_host.py").read_text())
    lines = blocks(DOCS / "signing-in.md", "python")[1]

    assert textwrap.indent(lines, "    ") in host
    assert len(lines.splitlines()) <= 10
    template = (postgres.ROOT / "examples/flask-host/templates/notes.html").read_text()
    template = template.replace("{{ belfry }}", "https://bell.example")
    for name, address in (("bell_token", "/bell-token"), ("inbox", "/inbox")):
        template = template.replace(f"{{{{ url_for('{name}') }}}}", address)
    for line in blocks(DOCS / "signing-in.md", "html")[0].splitlines():
        assert line in template


@pytest.mark.parametrize("name", ["README.md", "docs/publishing.md"])
def test_the_python_of_the_docs_runs(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = host_network.new_key(service)
    monkeypatch.setenv("BELFRY_KEY", key)
    [code] = blocks(postgres.ROOT / name, "python")
    addressed = re.sub(r'Client\("[^"]+"', f'Client("{service.url}"', code)
    assert addressed != code

    exec(addressed, {"key": key})

    expected = "".join(re.findall(r"print\(.*\)  # (.*)", code))
    assert pattern(expected).fullmatch(capsys.readouterr().out.strip())
    assert host_network.titles(service, "ada") != []


def test_every_command_with_curl_prints_what_its_page_says(service: Service, tmp_path: Path) -> None:
    page = postgres.ROOT / "examples/curl.md"
    curl = tmp_path / "bin/curl"
    curl.parent.mkdir()
    # curl itself may not be installed here, and this one refuses every option that the page has not used so far.
    curl.write_text(f'#!/bin/sh\nexec {sys.executable} -I {postgres.ROOT / "tests/curl.py"} "$@"\n')
    curl.chmod(0o755)
    steps = [step for block in blocks(page, "console") for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    script, expected = "", []
    for step in steps:
        command, *more = step.splitlines(keepends=True)
        while more and (command.endswith("\\\n") or more[0].startswith("> ")):
            command += more.pop(0).removeprefix("> ")
        script += f"{command}printf '\\036'\n"
        expected.append("".join(more))

    done = subprocess.run(
        ["/bin/sh", "-eu"],
        input=script,
        cwd=tmp_path,
        env={
            "PATH": f"{curl.parent}:{os.environ['PATH']}",
            "BELFRY": service.url,
            "KEY": host_network.new_key(service),
        },
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    assert len(steps) >= 15
    for step, said, shown in zip(steps, done.stdout.split("\036"), expected, strict=False):
        assert pattern(shown).fullmatch(said.strip()), (step, said)
    assert done.stdout.count("\036") == len(steps)


def test_the_reference_is_what_the_routes_say(app: flask.Flask) -> None:
    page = reference.PAGE.read_text()

    assert page == reference.page()
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(("/api/", "/notifications", "/preferences")):
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                path = re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule)
                assert f"\n### {method} {path}\n" in page


def test_the_page_on_limits_says_what_the_code_does(app: flask.Flask) -> None:
    page = (DOCS / "publishing.md").read_text()

    assert f"{limits.CALLS_PER_KEY.amount:,} a minute for a key" in page
    assert f"{publish_api.EVENT_BYTES // 1024} KiB" in page
    assert f"{publish_api.BATCH_BYTES // 1024**2} MiB" in page
    assert f"{publish_api.BATCH_RECIPIENTS:,} recipients in sum" in page
    assert str(people_api.TICKET_SECONDS) in (DOCS / "signing-in.md").read_text()
