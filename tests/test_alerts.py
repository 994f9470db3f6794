"""deploy/alerts.yml: Prometheus understands it, it rings when it should and not otherwise, and each says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import metrics
from tests import postgres, programs

FILE = postgres.ROOT / "deploy/alerts.yml"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]

# What is so when all is well, for an hour, a sample a minute, as promtool writes it.
WELL = {
    'up{job="belfry"}': "1x60",
    "belfry_database_up": "1x60",
    'belfry_requests_total{endpoint="a",status="2xx"}': "0+600x60",
    'belfry_requests_total{endpoint="a",status="5xx"}': "0+1x60",
    'belfry_polls_total{outcome="304"}': "0+6000x60",
    'belfry_polls_total{outcome="429"}': "0+30x60",
    'belfry_polls_total{outcome="503"}': "0x60",
    "belfry_blind_workers": "0x55 1x3 0x3",
    "belfry_notices_lost_total": "7x60",
    'belfry_limit_refusals_total{limit="account"}': "0+2x60",
    'belfry_limit_refusals_total{limit="key"}': "0+2x60",
    "belfry_statement_seconds_count": "0+1000x60",
    'belfry_statement_seconds_bucket{le="0.1"}': "0+999x60",
    "belfry_connection_wait_seconds_count": "0+1000x60",
    'belfry_connection_wait_seconds_bucket{le="0.5"}': "0+1000x60",
    "belfry_poll_interval_seconds": "30x60",
    "belfry_cleanup_done_timestamp_seconds": "0x60",
    "belfry_oldest_overdue_seconds": "80000x60",
}
GONE = dict.fromkeys(WELL, "_x60")
# What is otherwise, and the one alert that it raises.
WRONG: list[tuple[str, dict[str, str]]] = [
    ("BelfryGone", {'up{job="belfry"}': "0x60"}),
    ("BelfryGone", GONE),
    ("BelfryDatabaseDown", {"belfry_database_up": "0x60", "belfry_oldest_overdue_seconds": "_x60"}),
    ("BelfryErrors", {'belfry_requests_total{endpoint="a",status="5xx"}': "0+90x60"}),
    ("BelfryErrors", {'belfry_polls_total{outcome="503"}': "0+90x60"}),
    ("BelfryBlindWorkers", {"belfry_blind_workers": "1x60"}),
    ("BelfryNoticesLost", {"belfry_notices_lost_total": "7x50 9x10"}),
    ("BelfryPollsRefused", {'belfry_polls_total{outcome="429"}': "0+300x60"}),
    ("BelfrySignInsRefused", {'belfry_limit_refusals_total{limit="account"}': "0+20x60"}),
    ("BelfrySendersRefused", {'belfry_limit_refusals_total{limit="key"}': "0+20x60"}),
    ("BelfrySlowStatements", {'belfry_statement_seconds_bucket{le="0.1"}': "0+900x60"}),
    ("BelfryWaitsForConnections", {'belfry_connection_wait_seconds_bucket{le="0.5"}': "0+900x60"}),
    ("BelfryUnderLoad", {"belfry_poll_interval_seconds": "90x60"}),
    ("BelfryCleanUpOverdue", {"belfry_cleanup_done_timestamp_seconds": "-200000x60"}),
    (
        "BelfryCleanUpOverdue",
        {"belfry_cleanup_done_timestamp_seconds": "_x60", "belfry_oldest_overdue_seconds": "200000x60"},
    ),
]


def promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([programs.find("promtool"), *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_prometheus_understands_the_rules() -> None:
    status, said = promtool("check", "rules", str(FILE))
    assert status == 0, said
    assert f"SUCCESS: {len(RULES)} rules found" in said


def expected(rule: dict[str, Any], raised: str | None) -> dict[str, Any]:
    """What promtool is to find of the rule after an hour, be it raised or not."""
    labels = {**rule["labels"], **({"job": "belfry"} if "up{" in rule["expr"] else {})}
    found = {"exp_labels": labels, "exp_annotations": rule["annotations"]}
    return {"eval_time": "1h", "alertname": rule["alert"], "exp_alerts": [found] if rule["alert"] == raised else []}


def test_each_alert_is_raised_by_its_trouble_alone_and_none_when_all_is_well(tmp_path: Path) -> None:
    cases: list[tuple[str | None, dict[str, str]]] = [(None, {}), *WRONG]
    tests = [
        {
            "name": f"{raised}: {list(changed)[:1]}",
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in {**WELL, **changed}.items()],
            "alert_rule_test": [expected(rule, raised) for rule in RULES],
        }
        for raised, changed in cases
    ]
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": tests})
    )

    status, said = promtool("test", "rules", str(tmp_path / "tests.yml"))

    assert status == 0, said
    assert {raised for raised, _ in WRONG} == {rule["alert"] for rule in RULES}


def test_every_number_that_an_alert_asks_for_is_counted() -> None:
    names = {metric.name for metric in metrics.METRICS}
    asked = {name for rule in RULES for name in re.findall(r"belfry_\w+", rule["expr"])}
    assert asked
    assert {re.sub(r"_(bucket|count)$", "", name) for name in asked} <= names


def test_every_class_and_label_that_an_alert_asks_for_is_there() -> None:
    bounds = {f"{bound:g}" for bound in metrics.PIECE}
    asked = " ".join(rule["expr"] for rule in RULES)
    assert set(re.findall(r'le="([^"]+)"', asked)) <= bounds
    limits = {label for known in metrics.REFUSALS.known for label in known}
    assert set("|".join(re.findall(r'limit=~"([^"]+)"', asked)).split("|")) <= limits


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"].endswith(".")
    page, heading = rule["annotations"]["runbook"].split("#")
    headings = re.findall(r"^#+ (.+)$", (postgres.ROOT / page).read_text(), re.MULTILINE)
    assert heading in [title.lower().replace(" ", "-") for title in headings]
