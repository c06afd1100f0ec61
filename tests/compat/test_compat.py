"""Sluice held to Apache Kafka answer by answer. The oracle's answers stand in oracle.json; `make oracle` captures them anew.

`pending.json` counts, per scenario, differences that are still there. A scenario may never have more than its number, and a number
that is too high fails as well, so the list can only shrink. Scenarios that are not in it agree in every field but for `allowed.py`.
"""

import collections
import json
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import allowed  # noqa: E402
import compare  # noqa: E402
import harness  # noqa: E402
import messages  # noqa: E402
import oracle  # noqa: E402

PENDING = HERE / "pending.json"


@pytest.fixture(scope="module")
def known():
    return json.loads(oracle.FILE.read_text())


@pytest.fixture(scope="module")
def versions(known):
    return {int(key): tuple(pair) for key, pair in known["versions"].items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    broker = harness.Broker(tmp_path_factory.mktemp("compat"), settings=[
        "group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=5"])
    broker.start()
    oracle.warm(broker.bootstrap)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def ours(server, versions):
    return json.loads(json.dumps(oracle.run(server.bootstrap, versions)))


def test_every_answer_is_kafkas(known, ours):
    found = collections.defaultdict(list)
    for name, steps in ours.items():
        for difference in compare.scenario(name, known["scenarios"][name], steps):
            found[name].append(difference)
    counts = {name: len(ones) for name, ones in sorted(found.items())}
    pending = json.loads(PENDING.read_text())
    worse = {name: ones for name, ones in found.items() if len(ones) > pending.get(name, 0)}
    text = "\n".join(str(one)[:400] for ones in worse.values() for one in ones[:20])
    assert not worse, f"answers that are not Kafka's:\n{text}"
    assert counts == pending, f"better than pending.json says; write this there: {json.dumps(counts)}"
    unused = [one.reason for number, one in enumerate(allowed.ALLOWED) if number not in allowed.used]
    assert not unused, f"allowed differences that never occur: {unused}"


def outcomes(steps):
    """{(API, version): {"good", "bad"}} of transcripts: some part succeeds, some part fails or there is no answer."""
    seen = collections.defaultdict(set)
    for step in steps:
        codes = list(error_codes(step["answer"]))
        if step["answer"] in ("closed", "silent") or any(codes):
            seen[step["api"], step["version"]].add("bad")
        if step["answer"] not in ("closed", "silent") and not all(codes) or not codes:
            seen[step["api"], step["version"]].add("good")
    return seen


def error_codes(answer):
    if isinstance(answer, dict):
        for name, value in answer.items():
            if name.endswith("ErrorCode") and isinstance(value, int):
                yield value
            else:
                yield from error_codes(value)
    elif isinstance(answer, list):
        for one in answer:
            yield from error_codes(one)


# Between brokers and controllers, and share and Streams groups, which have scenarios when they are served.
NOT_COVERED = set(range(52, 55)) | {58, 59, 62, 63, 67, 70, 73} | set(range(76, 95))
# No request of a broker without an authorizer, SASL, tokens or telemetry succeeds.
NEVER_GOOD = {29, 30, 31, 17, 36, 38, 39, 40, 41, 43, 57, 64, 34}
# Nothing in a request can be wrong.
NEVER_BAD = {16, 18, 46, 74}


def test_every_version_that_kafka_serves_is_asked_well_and_badly(known, versions):
    seen = outcomes(step for steps in known["scenarios"].values() for step in steps)
    missing = []
    for key, (first, last) in versions.items():
        if key in NOT_COVERED:
            continue
        name = messages.names()[key]
        for version in range(max(first, messages.api(name)[0].valid[0]), last + 1):
            wanted = {"good", "bad"} - ({"good"} if key in NEVER_GOOD else set()) - ({"bad"} if key in NEVER_BAD else set())
            lacking = wanted - seen[name, version]
            if lacking:
                missing.append(f"{name} v{version}: no {' and no '.join(sorted(lacking))} request")
    covered = sum(len(kinds) for kinds in seen.values())
    print(f"{sum(map(len, known['scenarios'].values()))} answers, {covered} (API, version, outcome) of Kafka {known['kafka']}")
    assert not missing, "\n".join(missing)
