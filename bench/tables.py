"""How figures are written down: medians with their lowest and highest, and goals beside them."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def goal(
    name: str, values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None, unit: str = ""
) -> str:
    """A line of the table of goals; `values` are the rounds', and their median counts."""
    value = statistics.median(values)
    is_reached = value >= at_least if at_least is not None else value <= (at_most or 0)
    bound = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    digits = 2 if value < 100 else 0
    return f"| {name} | {spread(values, digits)}{unit} | {bound}{unit} | {'reached' if is_reached else 'missed'} |"
