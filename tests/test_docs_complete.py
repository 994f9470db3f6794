"""What there is, is in the docs: each route, setting, command with its options, metric; and every block is true."""

import functools
import http.server
import re
import threading
from pathlib import Path

import flask
import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from app import metrics, settings
from docs import commands
from tests import postgres
from tests.bells import Bell, sign_in
from tests.documents import PAGES, blocks
from tests.service import free_port, running_service

DOCS = postgres.ROOT / "docs"
TEXT = "\n".join(page.read_text() for page in PAGES)

# Blocks for a shell that no test runs as they stand, by their beginning, each with the reason; the others say which
# test runs them, or what they show.
SHELL = {
    "make run ": "tests/test_serve.py runs it",
    "python3 -c 'import secrets; print(secrets.token_hex())' > jwt.key": "starts two programs that stay; the host is"
    " run by tests/test_examples.py",
    "export JWT_KEY=$(cat jwt.key) BELFRY_URL": "the same",
    "apt-get install git": "changes the machine; the files that it installs are run by tests/test_deploy.py",
    "install -d -m 700 /etc/belfry": "the same",
    "createuser ": "the same",
    "export FLASK_ENV_FILE=": "the same",
    "cp deploy/nginx.conf": "the same",
    ".venv/bin/flask user add ada": "tests/test_docs.py runs such commands",
    "cd /srv/belfry": "tests/test_deploy.py takes its settings from it",
    "git pull": "changes the machine; the takeover is run by tests/test_deploy.py",
    "git checkout RELEASE": "the same",
    "PUBLIC_URL=https://app.example/belfry": "shows settings",
    "PUBLIC_URL=https://bell.app.example": "shows settings",
    "RATELIMIT_STORAGE_URI=": "shows a setting",
    "journalctl ": "needs systemd at work",
    "systemctl status belfry": "the same",
    "python3 -m venv .venv": "shows what docs/deploying.md does step by step",
    "curl -i http://127.0.0.1:8000/readyz": "tests/test_readiness.py asks it",
    "pg_dump ": "tests/test_restore.py runs it",
    "createdb ": "tests/test_restore.py runs it",
    "export EPOCH=": "tests/test_restore.py takes it",
    "openssl genpkey": "makes a key as tests/test_docs_for_hosts.py does",
    "BELFRY=http://127.0.0.1:8000": "tests/test_docs_for_hosts.py sets both",
    "export BELFRY_URL=http://127.0.0.1:8000 BELFRY_KEY=": "starts a program that stays; run by tests/test_examples.py",
    "CORS_ORIGINS=http://127.0.0.1:5000 make run": "this file runs the tutorial",
    "python3 -m http.server": "this file runs the tutorial",
}


def test_every_route_is_in_the_docs(app: flask.Flask) -> None:
    reference, rest = (DOCS / "reference.md").read_text(), (DOCS / "api.md").read_text().split("## Everything else")[1]
    rules = [rule.rule for rule in app.url_map.iter_rules()]
    assert len(rules) > 30
    for rule in rules:
        path = re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule)
        if rule.startswith(("/api/", "/notifications", "/preferences")):
            assert f" {path}\n" in reference, rule
        else:
            verbs = re.match(r"/<any\((.*)\):verb>", rule)
            for address in [f"/{verb}" for verb in verbs[1].split(", ")] if verbs else [re.sub("<.*", "…", rule)]:
                assert f"`{address}`" in rest, rule


def test_every_setting_is_in_the_docs_and_the_example(app: flask.Flask) -> None:
    for name in settings.Settings.model_fields:
        assert f"| `{name.upper()}` |" in (DOCS / "configuration.md").read_text(), name
        assert f"{name.upper()}=" in (postgres.ROOT / "deploy/belfry.env.example").read_text(), name


def test_every_setting_that_the_docs_name_is_one() -> None:
    settings_of_ours = {name.upper() for name in settings.Settings.model_fields}
    for line in re.findall(r"`(?:export )?([A-Z][A-Z_]+)=\S*`", TEXT):
        assert line.removesuffix("_FILE") in settings_of_ours, line


def test_the_page_of_commands_is_what_the_commands_say(app: flask.Flask) -> None:
    page = commands.PAGE.read_text()

    assert page == commands.page()
    found = dict(commands.commands())
    ours = {f"{name} {inner}" for name in ("user", "key") for inner in app.cli.commands[name].commands}  # type: ignore[attr-defined]
    ours |= set(app.cli.commands) - {"user", "key", "db"}
    assert set(found) == ours
    for name, command in found.items():
        section = page.split(f"\n## flask {name}\n")[1].split("\n## ")[0]
        for option in [part for parameter in command.params for part in parameter.opts if part.startswith("--")]:
            assert option == "--json" or option in section, (name, option)


def test_every_option_that_the_docs_name_is_one() -> None:
    known = {name: {part for one in command.params for part in one.opts} for name, command in commands.commands()}
    named = re.findall(r"\bflask ((?:user |key )?[a-z-]+)([^`\n|#]*)", TEXT)
    assert len(named) > 40
    for name, rest in named:
        if name in known:
            for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
                assert option in known[name] or option == "--help", (name, option)


def test_every_metric_is_in_the_docs(app: flask.Flask) -> None:
    page = (DOCS / "monitoring.md").read_text()
    declared = set(re.findall(r"\bbelfry_[a-z_]+", Path(metrics.__file__).read_text()))

    assert len(declared) >= 10
    for name in declared:
        assert f"`{name}" in page, name
    for name in re.findall(r"`(belfry_[a-z_]+)`", TEXT):
        assert f"| `{name}" in page or name in ("belfry_client", "belfry_changes", "belfry_restored"), name


def test_every_page_can_be_reached_from_the_readme() -> None:
    contents = (postgres.ROOT / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in contents, page.name


def test_every_block_for_a_shell_is_run_or_says_why_not() -> None:
    used = set()
    for page in PAGES:
        for block in blocks(page, "sh"):
            [beginning] = [beginning for beginning in SHELL if block.startswith(beginning)]
            used.add(beginning)
    assert used == set(SHELL)
    for reason in SHELL.values():
        for name in re.findall(r"tests/\w+\.py", reason):
            assert (postgres.ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_part_of_a_page_finds_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
        if not target.startswith("http"):
            text = (page.parent / target if target else page).read_text()
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, (page.name, target, anchor)


def test_the_bell_of_the_tutorial_rings(chromium: Chromium, tmp_path: Path) -> None:
    tutorial = DOCS / "tutorial.md"
    [page] = blocks(tutorial, "html")
    send = next(line for block in blocks(tutorial, "console") for line in block.splitlines() if " send " in line)
    port = free_port()
    with running_service(CORS_ORIGINS=f"http://127.0.0.1:{port}", POLL_INTERVAL="1") as service:
        service.add_user("ada")
        (tmp_path / "index.html").write_text(page.replace("http://127.0.0.1:8000", service.url))
        handler = functools.partial(QuietFiles, directory=str(tmp_path))
        with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            context = chromium.new_context()
            sign_in(context, service, "ada")
            bell = Bell(context.new_page(), f"http://127.0.0.1:{port}").go()

            words = re.findall(r'"[^"]*"|\S+', send.removeprefix("$ .venv/bin/flask "))
            done = service.flask(*[word.strip('"') for word in words])
            assert done.returncode == 0, done.stderr

            expect(bell.badge).to_have_text("1")
            bell.button.click()
            expect(bell.row("The bell rings")).to_be_visible()
            assert not [said for said in bell.complaints if "policy" in said]
            context.close()
            server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass
