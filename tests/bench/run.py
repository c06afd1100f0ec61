"""Apache Kafka and Sluice on this machine in one run, alternating.

    make bench                      every row, three rounds, under an hour
    make bench QUICK=1              the main rows, one round, small sizes, under five minutes
    make bench ROWS=java,cold       parts by name
    make bench ROUNDS=1             fewer rounds
    make bench WRITE=1              writes the tables of docs/benchmarks.md
    make bench BENCH_ANYWAY=1       also on a busy machine; the report says so

Both brokers run on loopback with their own defaults, Kafka with a 1 GiB heap. Everything lies below
$BENCH_DIR (default: the cache directory) and is removed.
"""

import dataclasses
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import context  # noqa: E402
import harness  # noqa: E402
import machine  # noqa: E402
import process  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import servers  # noqa: E402
from part import BOTH, Results  # noqa: E402

ROUNDS = 3
# The largest part writes 5 GiB; Sluice has its log beside the objects.
FREE_GIB_MIN, FREE_GIB_MIN_QUICK = 12, 6


@dataclasses.dataclass
class Run:
    quick: bool
    rounds: int
    load: float
    commit: str
    anyway: str = ""
    minutes: float = 0.0
    others: list = dataclasses.field(default_factory=list)


def flag(name):
    return os.environ.get(name, "") not in ("", "0")


def chosen(quick):
    """Parts to run, in order."""
    names = [name for name in os.environ.get("ROWS", "").replace(",", " ").split() if name]
    known = {part.name: part for part in rows.PARTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no part {', '.join(unknown)}; parts: {', '.join(known)}")
    if names:
        return [known[name] for name in known if name in names]
    return [part for part in rows.PARTS if not quick or part.quick_seconds]


def plan(parts, quick, rounds):
    """Prints what will run and how long it takes."""
    total = 0.0
    for part in parts:
        seconds = (part.quick_seconds or part.seconds) if quick else part.seconds
        minutes = seconds * len(part.sides) * rounds / 60
        total += minutes
        say(f"  {part.name:18} {minutes:5.1f} min   {len(part.rows)} rows, {', '.join(part.sides)}")
    say(f"  about {total + 0.25 * rounds:.0f} minutes in all")


def say(text):
    print(text, file=sys.stderr, flush=True)


def refuse_unless_fit(place, quick):
    """The reason why the machine is not fit, when that is to be passed over."""
    harness.require_binary()
    wanted = FREE_GIB_MIN_QUICK if quick else FREE_GIB_MIN
    free = process.free_gib(place)
    if free < wanted:
        sys.exit(f"{place} has {free:.0f} GiB free, {wanted} are needed; choose another with BENCH_DIR")
    why = process.loaded()
    if why and not flag("BENCH_ANYWAY"):
        sys.exit(f"{why}: figures would be theirs; wait, or set BENCH_ANYWAY=1, which the report will say")
    return why or ""


def measure(parts, run, place, results):
    """All rounds. Gives back what the machine can do."""
    shared, measured = {}, []
    for number in range(run.rounds):
        order = BOTH if number % 2 == 0 else tuple(reversed(BOTH))
        try:
            measured.append(machine.measure(place, 0.7 if run.quick else 1.5))
        except Exception as error:
            results.failures.append(("machine", "-", context.reason(error)))
        for part in parts:
            for side in (side for side in order if side in part.sides):
                others, began = process.Others(), time.monotonic()
                failed = len(results.failures)
                context.run_part(part, side, place / f"{part.name}-{side}-{number}", run.quick, results, shared)
                run.others.append((part.name, others.share()))
                say(f"[{number + 1}/{run.rounds}] {part.name:18} {side:7} {time.monotonic() - began:6.1f} s  "
                    f"others {run.others[-1][1]:4.0%}")
                for _, _, why in results.failures[failed:]:
                    say(f"      failed: {why}")
    try:
        return machine.limits(measured)
    except Exception as error:
        results.failures.append(("machine", "-", context.reason(error)))
        return {}


def clean_up():
    for server in servers.Server.made:
        server.kill()


def main():
    quick = flag("QUICK")
    rounds = int(os.environ.get("ROUNDS") or (1 if quick else ROUNDS))
    parts = chosen(quick)
    base = pathlib.Path(os.environ.get("BENCH_DIR") or harness.CACHE / "bench")
    base.mkdir(parents=True, exist_ok=True)
    say(f"{rounds} round(s):")
    plan(parts, quick, rounds)
    load = os.getloadavg()[0]
    run = Run(quick, rounds, load, report.commit(), refuse_unless_fit(base, quick))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    results, began, limits = Results(), time.monotonic(), {}
    place = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=base))
    try:
        limits = measure(parts, run, place, results)
    except KeyboardInterrupt:
        say("interrupted; what was measured so far:")
    finally:
        clean_up()
        shutil.rmtree(place, ignore_errors=True)
    run.minutes = (time.monotonic() - began) / 60
    text = report.render(parts, results, limits, run)
    print(text)
    if flag("WRITE"):
        report.write(text)
        say(f"wrote {report.PAGE}")
    sys.exit(1 if results.failures else 0)


if __name__ == "__main__":
    main()
