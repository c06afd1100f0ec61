"""The harness itself: goals, medians, what a failure leaves, the page that is written."""

import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

import context  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402
from part import KAFKA, SLUICE, Facts, Part, Results, Row, at_least, at_most, below, own, within  # noqa: E402


def facts(kafka, sluice, machine=None, others=None):
    return Facts(kafka, sluice, machine or {}, others or {})


def test_goals_are_met_or_not_or_cannot_be_told():
    assert at_least(2).met(facts(100, 200)) and not at_least(2).met(facts(100, 199))
    copies = at_least(2, "copies", 0.8)
    assert copies.met(facts(100, 81, {"copies": 100})) and not copies.met(facts(100, 79, {"copies": 100}))
    assert at_most(0.4).met(facts(10, 4)) and not at_most(0.4).met(facts(10, 4.1))
    assert at_most(0.4).met(facts(None, 1)) is None
    assert below(32).met(facts(None, 32)) and not below(32).met(facts(None, 33))
    assert within("sync", 0.3).met(facts(None, 1.3, {"sync": 1.0}))
    assert within("sync", 0.3).met(facts(None, 1.0)) is None
    assert own("p99", 1.2).met(facts(None, 12, others={"p99": 10}))
    assert not own("p99", 1.2).met(facts(None, 12.1, others={"p99": 10}))


def broken(context):
    yield lambda: {"first": 2.0}
    yield lambda: {"second": 1 / 0}
    yield lambda: {"third": 8.0 if context.side == KAFKA else 4.0}


PART = Part("some", broken, (Row("first", at_most(1)), Row("second"), Row("third", at_most(0.4))), 1, 1)


@pytest.fixture
def results(tmp_path):
    results = Results()
    for side in (KAFKA, SLUICE):
        context.run_part(PART, side, tmp_path / side, True, results, {})
        assert not (tmp_path / side).exists(), "the place is removed"
    return results


def text(results):
    return report.render([PART], results, {}, run.Run(True, 1, 0.5, "abc", anyway="load is 9"))


def test_a_step_that_fails_does_not_lose_the_others(results):
    assert results.median("some", "third", SLUICE) == 4.0
    assert [(part, side) for part, side, _ in results.failures] == [("some", KAFKA), ("some", SLUICE)]
    out = text(results)
    assert "| first | 2.00 | 2.00 | 1.00 |  | <= 1x | met |" in out
    assert "| third | 8.00 | 4.00 | 0.50 |  | <= 0.4x | **not met** |" in out
    assert "| second | - | - | - |" in out and "ZeroDivisionError" in out
    assert "busy machine** (load is 9)" in out and "Goals: 1 met, 1 not met" in out


def test_memory_over_its_bound_is_named(results):
    results.peak(KAFKA, "load", 900.0, None)
    results.peak(SLUICE, "load", 191.0, 192)
    assert "over the bound" not in text(results)
    results.peak(SLUICE, "load", 193.0, 192)
    assert "**over the bound**: load: 193 MiB, memory.max + 64 MiB is 192 MiB" in text(results)


def test_the_page_keeps_what_people_wrote(tmp_path, results):
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{report.BEGIN}\nold\n{report.END}\n\n## What the profile says\n")
    report.write(text(results), page)
    report.write(text(results), page)
    written = page.read_text()
    assert written.startswith("above\n") and written.endswith("## What the profile says\n")
    assert "\nold\n" not in written and written.count("### some") == 1
    page.write_text("no marks")
    with pytest.raises(ValueError):
        report.write("x", page)
    assert report.PAGE.read_text().count(report.BEGIN) == 1


def test_every_part_has_a_title_and_its_own_rows():
    names = [row.name for part in rows.PARTS for row in part.rows]
    assert len(names) == len(set(names))
    assert {part.name for part in rows.PARTS} == report.TITLES.keys()
    quick = sum(part.quick_seconds * len(part.sides) for part in rows.PARTS if part.quick_seconds)
    full = sum(part.seconds * len(part.sides) for part in rows.PARTS) * run.ROUNDS
    assert quick < 285 and full < 55 * 60
