"""Reads what /metrics says."""

import re
from typing import Any

from tests.service import Service
from tests.web import Browser

SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)

Numbers = dict[str, float]


def parse(text: str) -> Numbers:
    """Each sample by its name and labels, as they stand there."""
    return {name: float(value) for name, value in SAMPLE.findall(text)}


def of(service: Service) -> Numbers:
    answer = Browser(service.url).open("/metrics")
    assert answer.status == 200, answer.body
    return parse(answer.body.decode())


def of_app(client: Any) -> Numbers:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.data
    return parse(answer.get_data(as_text=True))


def raised(before: Numbers, after: Numbers) -> Numbers:
    """What has risen, and by how much; numbers that were not there began at 0."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)}
