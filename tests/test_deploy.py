"""What operators copy says what the code does: systemd units, Dockerfile, compose file, environment example."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from docs import environment
from tests import postgres, programs
from tests.proxy import changed
from tests.service import answers, free_port, wait_until

DEPLOY = postgres.ROOT / "deploy"
UNITS = ["belfry.service", "belfry-cleanup.service", "belfry-cleanup.timer"]
MOST_EXPOSED = 15  # of 100, by systemd's own count
# Runs a program as a unit with NoNewPrivileges and MemoryDenyWriteExecute does.
HARDENED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, 'PR_SET_NO_NEW_PRIVS'
assert libc.prctl(65, 1, 0, 0, 0) == 0, f'PR_SET_MDWE {ctypes.get_errno()}'
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Lists(dict[str, Any]):
    """Several lines of one name are all kept."""

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(value, list) and name in self:
            self[name].extend(value)
        else:
            super().__setitem__(name, value)


def unit(name: str) -> dict[str, list[str]]:
    parser = configparser.RawConfigParser(strict=False, dict_type=Lists, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return {key: value.split("\n") for key, value in parser["Service"].items()}


def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    for name in UNITS:
        text = (DEPLOY / name).read_text()
        if name.endswith(".service"):
            text = changed(text, ("/srv/belfry/.venv/bin/", f"{Path(sys.executable).parent}/"))
        (tmp_path / name).write_text(text)
    command = [programs.find("systemd-analyze"), "verify", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "belfry" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("name", ["belfry.service", "belfry-cleanup.service"])
def test_the_units_leave_little_to_whoever_breaks_in(name: str) -> None:
    command = [programs.find("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSED}"]
    done = subprocess.run([*command, str(DEPLOY / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_unit_is_patient_enough_for_what_it_stops() -> None:
    config = (postgres.ROOT / "gunicorn.conf.py").read_text()
    [graceful] = re.findall(r"^graceful_timeout = (\d+)", config, re.MULTILINE)
    assert int(unit("belfry.service")["TimeoutStopSec"][0]) > int(graceful)
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    assert int(compose["services"]["belfry"]["stop_grace_period"].removesuffix("s")) > int(graceful)


def test_the_units_name_settings_that_there_are() -> None:
    for name in ("belfry.service", "belfry-cleanup.service"):
        content = unit(name)
        handed = {one.split(":")[0] for one in re.findall(r"LoadCredential=(\S+)", (DEPLOY / name).read_text())}
        named = dict(pair.split("=", 1) for pair in shlex.split(content["Environment"][0]))
        assert {path.removeprefix("%d/") for path in named.values()} == handed
        assert {variable.removesuffix("_FILE").lower() for variable in named} <= set(Settings.model_fields)


def test_the_units_command_lines_run_hardened_in_a_checkout(checkout: Path, tmp_path_factory: Any) -> None:
    def command(name: str, option: str = "ExecStart") -> list[str]:
        return shlex.split(unit(name)[option][0].replace("/srv/belfry", str(checkout)))

    credentials = tmp_path_factory.mktemp("credentials")
    port = free_port()
    with postgres.database() as url:
        (credentials / "database_url").write_text(url)
        (credentials / "secret_key").write_text(postgres.SECRET_KEY)
        handed = shlex.split(unit("belfry.service")["Environment"][0].replace("%d", str(credentials)))
        settings = {**dict(pair.split("=", 1) for pair in handed), "PORT": str(port), "PATH": os.environ["PATH"]}
        hardened = [sys.executable, "-c", HARDENED]
        process = subprocess.Popen([*hardened, *command("belfry.service")], cwd=checkout, env=settings)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/login"), "the unit's service answers")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as ready:
                assert ready.status == 200
            cleanup = [*hardened, *command("belfry-cleanup.service")]
            done = subprocess.run(cleanup, cwd=checkout, env=settings, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout[:1]) == (0, "{"), done.stderr
        finally:
            process.terminate()
            process.wait(timeout=30)


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with what stands behind it."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line and not line.startswith("#")]


def test_the_image_holds_what_the_service_needs_and_runs_as_nobody(checkout: Path, tmp_path: Path) -> None:
    instructions = dockerfile()
    said = dict(instructions)
    assert said["USER"] == "10001:10001"
    assert (said["STOPSIGNAL"], said["EXPOSE"]) == ("SIGTERM", "8000")
    assert "requirements-embedded" not in (DEPLOY / "Dockerfile").read_text()
    assert all(f"!{name}" in (DEPLOY / "Dockerfile.dockerignore").read_text().split() for name in copied())
    variables = dict(pair.split("=", 1) for pair in said["ENV"].split())
    assert {"BIND", "PORT"} == {name for name in variables if name.lower() in Settings.model_fields}

    # The same files and the same commands, without the container.
    image = tmp_path / "image"
    image.mkdir()
    for name in copied():
        subprocess.run(["cp", "-r", str(postgres.ROOT / name), str(image / name)], check=True)
    command = yaml.safe_load(said["CMD"])
    programs_of_it = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    check = yaml.safe_load(said["HEALTHCHECK"].split(" CMD ", 1)[1])
    port = str(free_port())
    with postgres.database() as url:
        settings = postgres.environment(url, **{**variables, "PATH": programs_of_it, "PORT": port})
        process = subprocess.Popen(command, cwd=image, env=settings)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/login"), "the image's command answers")
            assert subprocess.run(check, env=settings, timeout=30).returncode == 0
        finally:
            process.terminate()
            process.wait(timeout=30)
        assert subprocess.run(check, env=settings, stderr=subprocess.DEVNULL, timeout=30).returncode != 0
    assert not (image / "instance").exists()


def copied() -> list[str]:
    return [
        name
        for instruction, rest in dockerfile()
        if instruction == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    ]


def test_the_compose_file_holds_what_the_code_says() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    services, secrets = compose["services"], set(compose["secrets"])
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["secrets"]) <= secrets
        assert "ports" not in service or all(port.startswith("127.0.0.1:") for port in service["ports"])
    for name in services["belfry"]["environment"]:
        assert name.removesuffix("_FILE").lower() in Settings.model_fields
    assert services["belfry"]["ports"] == ["127.0.0.1:8000:8000"]
    assert services["migrate"]["command"] == ["flask", "db", "upgrade"]
    assert services["database"]["image"].startswith("postgres:18")
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services) - {name}
        if "build" in service:
            assert (postgres.ROOT / service["build"]["dockerfile"]).exists()


def test_the_environment_example_is_what_the_settings_say() -> None:
    assert environment.EXAMPLE.read_text() == environment.page()
    shown = re.findall(r"^#?([A-Z_]+)=", environment.EXAMPLE.read_text(), re.MULTILINE)
    assert shown == [name.upper() for name in Settings.model_fields]
    # Each line without its # is its setting's default, as a shell and systemd read it.
    lines = re.findall(r"^#([A-Z_]+=.*)$", environment.EXAMPLE.read_text(), re.MULTILINE)
    said = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    chosen = Settings(**{name.lower(): value for name, value in said.items() if value})
    assert chosen == Settings()


def test_the_lines_for_a_shell_give_a_command_the_services_settings(tmp_path: Path) -> None:
    (tmp_path / "belfry.env").write_text((DEPLOY / "belfry.env.example").read_text())
    (tmp_path / "secret_key").write_text("0123456789abcdef" * 4)
    (tmp_path / "database_url").write_text(f"postgresql://belfry:password@127.0.0.1:{free_port()}/belfry")
    section = (postgres.ROOT / "docs/deploying.md").read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
    exports = [line for line in section.splitlines() if line.startswith("export ")]
    script = "\n".join([*exports, f"{sys.executable} -m flask doctor --no-network --json"])
    done = subprocess.run(
        ["sh", "-c", script.replace("/etc/belfry/", f"{tmp_path}/")],
        cwd=postgres.ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    found = {finding["subject"]: finding["detail"] for finding in json.loads(done.stdout)}
    assert (found["public address"], found["proxies"], found["database"], found["secret key"]) == (
        "https://bell.example.com",
        "1 trusted",
        "DATABASE_URL names it",
        "set",
    )
