"""Tables of what came out, as Markdown: for the terminal and for docs/benchmarks.md."""

import os
import pathlib
import subprocess
import time

import machine
from part import KAFKA, SLUICE, Facts, Row, at_most

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin, written by `make bench WRITE=1` -->", "<!-- bench:end -->"
PEAK = Row("peak", at_most(0.2))

TITLES = {
    "start": "Start and memory at rest", "start-killed": "Start after kill -9", "start-full": "Start with data",
    "generator-large": "Pre-encoded generator, large batches, 16 partitions",
    "generator-single": "Pre-encoded generator, large batches, one partition",
    "generator-small": "Pre-encoded generator, small batches",
    "generator-open": "Pre-encoded generator, open loop",
    "java": "Java clients", "java-halves": "Java producer, one partition, half of Kafka's rate",
    "java-shapes": "Java producer, record size, codec, linger", "java-producers": "Several Java producers",
    "librdkafka": "librdkafka", "tail": "Reading the tail", "cold": "Reading cold data, local directory",
    "cold-minio": "Reading cold data, MinIO", "cold-thin": "Reading cold data, thin batches",
    "cold-beside": "Producing beside a cold reader", "partitions": "10,000 partitions",
    "store": "The object store's bill", "store-large": "The object store's bill, memory.max 1 GiB", "sink": "Sink",
}


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4f}"


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def verdict(goal, facts):
    if goal is None:
        return "", ""
    if facts.sluice is None:
        return goal.text, "not measured"
    met = goal.met(facts)
    return goal.text, {True: "met", False: "**not met**", None: "cannot tell"}[met]


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def part_table(part, results, limits):
    ours = results.of(SLUICE)
    rows = []
    for row in part.rows:
        theirs, own = (results.median(part.name, row.name, side) for side in (KAFKA, SLUICE))
        goal, met = verdict(row.goal, Facts(theirs, own, limits, ours))
        limit = limits.get(row.limit)
        share = f"{own / limit:.2f} of {row.limit}" if limit and own is not None else ""
        rows.append([row.name, number(theirs), number(own), ratio(own, theirs), share, goal, met])
    return table(["row", "Kafka", "Sluice", "ratio", "against the machine", "goal", ""], rows)


def memory_table(results):
    rows, over = [], []
    for label, peaks in results.peaks.items():
        theirs, own = (max(peaks[side]) if side in peaks else None for side in (KAFKA, SLUICE))
        bound = results.bounds.get(label)
        excess = own is not None and bound is not None and own > bound
        goal, met = verdict(PEAK.goal, Facts(theirs, own, {}, {}))
        if excess:
            over.append(f"**over the bound**: {label}: {own:.0f} MiB, memory.max + 64 MiB is {bound} MiB")
        state = "**over**" if excess else "within"
        rows.append([label, number(theirs), number(own), ratio(own, theirs), goal, met, f"{bound or '-'}", state])
    lines = table(["peak RSS while, MiB", "Kafka", "Sluice", "ratio", "goal", "", "bound", ""], rows)
    return lines + ([""] + [f"- {line}" for line in over] if over else [])


def machine_table(limits):
    rows = [[name, number(value), machine.NOTES.get(name, "")] for name, value in limits.items()]
    return table(["limit of the machine", "", ""], rows)


def commit():
    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=PAGE.parent, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def model():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    return f"{os.cpu_count()} cores ({names[0] if names else 'unknown'}), {memory:.0f} GiB"


def head(run):
    lines = [
        f"{time.strftime('%Y-%m-%d')}, commit {run.commit}, {model()}, load before {run.load:.1f}, "
        f"{run.rounds} round(s), {run.minutes:.0f} minutes{', quick sizes' if run.quick else ''}. Medians of the rounds; "
        "ratio is Sluice to Kafka."
    ]
    if run.anyway:
        lines += ["", f"**Measured on a busy machine** ({run.anyway}): not to be relied on."]
    if run.others:
        busiest = max(run.others, key=lambda pair: pair[1])
        lines += ["", f"CPU taken by others (kernel threads included) while a part ran: at most {busiest[1]:.0%}, "
                      f"during {busiest[0]}."]
    return lines


def render(parts, results, limits, run):
    lines = head(run)
    goals = [verdict(row.goal, Facts(results.median(part.name, row.name, KAFKA),
                                     results.median(part.name, row.name, SLUICE), limits, results.of(SLUICE)))[1]
             for part in parts for row in part.rows if row.goal]
    lines += ["", f"Goals: {goals.count('met')} met, {goals.count('**not met**')} not met, "
                  f"{len(goals) - goals.count('met') - goals.count('**not met**')} not measured or not to be told."]
    if results.failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {part}, {side}: {why}" for part, side, why in results.failures]
    for part in parts:
        lines += ["", f"### {TITLES.get(part.name, part.name)}", "", *part_table(part, results, limits)]
    lines += ["", "### Peak memory", "", *memory_table(results)]
    if limits:
        lines += ["", "### The machine", "", *machine_table(limits)]
    lines += ["", "### Time taken", "", *time_table(parts, results)]
    return "\n".join(lines) + "\n"


def time_table(parts, results):
    rows = []
    for part in parts:
        took = results.seconds.get(part.name, {})
        rows.append([part.name, *(number(sum(took[side])) if side in took else "-" for side in (KAFKA, SLUICE))])
    total = [sum(sum(took.get(side, ())) for took in results.seconds.values()) for side in (KAFKA, SLUICE)]
    return table(["part, s", "Kafka", "Sluice"], [*rows, ["all", *map(number, total)]])


def write(text, page=PAGE):
    """Puts the tables between their marks; what people wrote around them stays."""
    old = page.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ValueError(f"{page} needs one line {BEGIN!r} and after it one line {END!r}")
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
