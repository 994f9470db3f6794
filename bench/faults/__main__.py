"""Runs the faults and prints their tables: `make faults`, or `python -m bench.faults --help`."""

import argparse
import sys
import time

from bench import simulation
from bench.__main__ import describe_machine, keep_environment
from bench.faults import crash_loop, sign_ins, soak
from bench.faults.faults import FAULTS, Fault
from bench.faults.figures import HEAD, Figures
from bench.faults.run import USUAL, Load, measure
from bench.faults.stage import Stage, set_up

PARTS = ("faults", "crash-loop", "sign-ins", "herd", "soak")
USUAL_PARTS = PARTS[:-1]
GETS = 0.999  # of the crash loop's polls are to be answered
SERVICE = 5.0  # seconds after a fault within which everything is as before


def main() -> None:
    options = _options()
    keep_environment()
    started = time.monotonic()
    parts = options.parts or USUAL_PARTS
    tables, missed = [], []
    if set(parts) - {"herd"}:
        with set_up() as stage:
            print(f"{describe_machine(stage.postgres.url)} nginx in front.\n", flush=True)
            if "faults" in parts:
                chosen = [FAULTS[name] for name in options.only or FAULTS]
                lines = [_line(stage, fault, USUAL, missed) for fault in chosen]
                tables.append("\n".join([HEAD, *lines]))
            if "sign-ins" in parts:
                tables.append(sign_ins.measure(stage, 10).table())
            if "crash-loop" in parts:
                fault = crash_loop.crash_loop(options.crash_seconds)
                tables.append("\n".join([HEAD, _line(stage, fault, crash_loop.LOAD, missed, GETS)]))
            if "soak" in parts:
                tables.append(soak.measure(stage, options.soak_seconds).table())
    if "herd" in parts:
        tables.append(simulation.herd_table())
    print("\n\n".join(tables))
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes in sum.")
    if missed:
        sys.exit("\n".join(["faults: missed", *missed]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="Belfry on a bad day.")
    usual = ", ".join(USUAL_PARTS)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"what to measure (default: {usual})")
    parser.add_argument("--only", nargs="+", choices=[*FAULTS], help="of the faults only these")
    parser.add_argument("--crash-seconds", type=float, default=300, help="length of the crash loop (default: 300)")
    parser.add_argument("--soak-seconds", type=float, default=300, help="length of the soak (default: 300)")
    return parser.parse_args()


def _line(stage: Stage, fault: Fault, load: Load, missed: list[str], gets: float = 0) -> str:
    figures = measure(stage, fault, load)
    print(f"{figures.line()}\n    answered otherwise: {figures.details()}", file=sys.stderr, flush=True)
    missed += [f"{figures.name}: {what}" for what in broken_promises(figures, gets)]
    return figures.line()


def broken_promises(figures: Figures, gets: float = 0) -> list[str]:
    """What the figures show that must never be."""
    found = {
        f"{figures.books.lost} acknowledged are lost": figures.books.lost,
        f"{figures.books.doubled} are there twice": figures.books.doubled,
        f"{figures.failed} failed": figures.failed,
        f"full service after {figures.full_service:.1f} s": figures.full_service > SERVICE,
        f"only {figures.gets_answered:.2%} of the GETs were answered": figures.gets_answered < gets,
    }
    return [what for what, is_broken in found.items() if is_broken]


if __name__ == "__main__":
    main()
