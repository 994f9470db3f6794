"""Runs the faults and prints their table: `make faults`, or `python -m bench.faults --help`."""

import argparse
import sys

from bench.faults.faults import FAULTS
from bench.faults.figures import HEAD
from bench.faults.run import measure
from bench.faults.stage import set_up


def main() -> None:
    options = _options()
    lines = []
    with set_up() as stage:
        for name in options.faults or FAULTS:
            figures = measure(stage, FAULTS[name])
            lines.append(figures.line())
            print(f"{lines[-1]}\n    failures: {figures.details()}", file=sys.stderr, flush=True)
    print("\n".join([HEAD, *lines]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="Belfry on a bad day.")
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], help="only these (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
