"""Rows, their goals, the parts that measure them, and what came out."""

import dataclasses
import statistics
import typing

KAFKA, SLUICE = "kafka", "sluice"
BOTH = (KAFKA, SLUICE)


@dataclasses.dataclass
class Facts:
    """What a goal may look at: the two medians of its row, the machine's limits, all of Sluice's rows."""

    kafka: typing.Optional[float]
    sluice: float
    machine: dict
    rows: dict


@dataclasses.dataclass(frozen=True)
class Goal:
    text: str
    # Facts to True, False, or None when it cannot be told.
    met: typing.Callable


def at_least(factor, limit=None, share=0.8):
    """`factor` times Kafka, or `share` of a limit of the machine if that is less."""

    def met(facts):
        if limit and facts.machine.get(limit) and facts.sluice >= share * facts.machine[limit]:
            return True
        return None if not facts.kafka else facts.sluice >= factor * facts.kafka

    return Goal(f">= {factor:g}x" + (f" or {share:g} of {limit}" if limit else ""), met)


def at_most(factor):
    """`factor` times Kafka."""
    return Goal(f"<= {factor:g}x", lambda facts: None if facts.kafka is None else facts.sluice <= factor * facts.kafka)


def below(value, unit=""):
    return Goal(f"<= {value:g}{unit}", lambda facts: facts.sluice <= value)


def above(value):
    return Goal(f">= {value:g}", lambda facts: facts.sluice >= value)


def within(limit, plus):
    """A figure of the machine and so much more."""

    def met(facts):
        return None if facts.machine.get(limit) is None else facts.sluice <= facts.machine[limit] + plus

    return Goal(f"<= {limit} + {plus:g}", met)


def own(row, factor):
    """`factor` times another row of Sluice's."""

    def met(facts):
        return None if facts.rows.get(row) is None else facts.sluice <= factor * facts.rows[row]

    return Goal(f"<= {factor:g}x its own without", met)


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    goal: typing.Optional[Goal] = None
    # Name of the machine's limit that this row is read against.
    limit: typing.Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What runs on one broker at a time. `run(context)` gives a figure for each row that it could measure."""

    name: str
    run: typing.Callable
    rows: tuple
    # Seconds for one broker and one round, full and quick; no quick figure: not part of the quick run.
    seconds: int
    quick_seconds: typing.Optional[int] = None
    sides: tuple = BOTH
    about: str = ""


class Results:
    """Every figure of every round, and what failed."""

    def __init__(self):
        self.figures = {}
        self.failures = []
        self.peaks = {}
        self.bounds = {}
        self.seconds = {}

    def add(self, part, side, figures):
        known = {row.name for row in part.rows}
        for name, value in figures.items():
            assert name in known, f"part {part.name} has no row {name!r}"
            if value is not None:
                self.figures.setdefault((part.name, name), {}).setdefault(side, []).append(float(value))

    def fail(self, part, side, reason):
        self.failures.append((part.name, side, reason))

    def peak(self, side, label, mib, bound):
        self.peaks.setdefault(label, {}).setdefault(side, []).append(mib)
        if bound:
            self.bounds[label] = bound

    def took(self, part, side, seconds):
        self.seconds.setdefault(part.name, {}).setdefault(side, []).append(seconds)

    def median(self, part, row, side):
        values = self.figures.get((part, row), {}).get(side)
        return statistics.median(values) if values else None

    def of(self, side):
        """All medians of one broker, by row."""
        return {row: self.median(part, row, side) for part, row in self.figures}
