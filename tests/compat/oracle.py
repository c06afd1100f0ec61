"""Runs the scenarios against a real Apache Kafka and keeps its answers in oracle.json (`make oracle`)."""

import json
import pathlib
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import kafka  # noqa: E402
import session  # noqa: E402
import scenarios  # noqa: E402

FILE = HERE / "oracle.json"
PAUSE = 0.15


def served(bootstrap):
    """{API number: (first, last)} of a broker's ApiVersions."""
    one = session.Session(bootstrap, "served")
    answer = one.quiet("ApiVersions", 0)
    one.close()
    return {found["ApiKey"]: (found["MinVersion"], found["MaxVersion"]) for found in answer["ApiKeys"]}


def warm(bootstrap):
    """Waits until both coordinators answer."""
    one = session.Session(bootstrap, "warm")
    for kind in (0, 1):
        for _ in range(300):
            found = one.quiet("FindCoordinator", 2, Key="warm", KeyType=kind)
            if found != session.CLOSED and found["ErrorCode"] == 0:
                break
            time.sleep(0.1)
    for _ in range(300):
        if one.quiet("OffsetFetch", 5, GroupId="warm", Topics=None).get("ErrorCode") == 0:
            break
        time.sleep(0.1)
    one.close()


def run(bootstrap, versions, only=None, say=None, pause=0.0):
    """{scenario: steps} against one broker, with the versions that `versions` names."""
    found = {}
    for name, function in scenarios.load().items():
        if only and not any(part in name for part in only):
            continue
        one, before = session.Session(bootstrap, name.replace("_", "-"), pause), time.monotonic()
        try:
            function(one, versions)
        except Exception as problem:  # a broker that falls behind a script is a difference like any other
            one.steps.append({"api": "script", "version": 0, "answer": f"{type(problem).__name__} after step {len(one.steps)}"})
            if say:
                say(f"{name}: {type(problem).__name__}: {str(problem)[:300]}")
        one.close()
        found[name] = one.steps
        if say:
            say(f"{name}: {len(one.steps)} answers, {time.monotonic() - before:.1f} s")
    return found


def written(versions, found):
    """The file: one line an answer, so that a change of an answer is a change of a line."""
    def line(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    lines = [f'{{"kafka":{line(kafka.VERSION)},"captured":{line(time.strftime("%Y-%m-%d"))},']
    lines.append(f'"versions":{line({str(key): list(pair) for key, pair in sorted(versions.items())})},"scenarios":{{')
    for number, (name, steps) in enumerate(sorted(found.items())):
        lines.append(f"{line(name)}:[")
        lines += [line(step) + ("," if step is not steps[-1] else "") for step in steps]
        lines.append("]," if number + 1 < len(found) else "]")
    return "\n".join([*lines, "}}", ""])


def main():
    place = pathlib.Path(tempfile.mkdtemp(prefix="sluice-oracle-"))
    broker = kafka.Kafka(place / "kafka")
    try:
        broker.wait_ready()
        warm(broker.bootstrap)
        versions = served(broker.bootstrap)
        found = run(broker.bootstrap, versions, sys.argv[1:], say=lambda text: print(text, flush=True), pause=PAUSE)
    finally:
        broker.stop()
        shutil.rmtree(place, ignore_errors=True)
    if sys.argv[1:]:
        known = json.loads(FILE.read_text())
        found = {**known["scenarios"], **found}
    FILE.write_text(written(versions, found))
    print(f"{sum(len(steps) for steps in found.values())} answers of Kafka {kafka.VERSION} in {len(found)} scenarios")


if __name__ == "__main__":
    main()
