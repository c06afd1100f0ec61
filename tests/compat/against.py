"""Compares one running broker with the oracle and prints what differs: python against.py HOST:PORT [SCENARIO...]"""

import collections
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import compare  # noqa: E402
import oracle  # noqa: E402


def main():
    bootstrap, only = sys.argv[1], sys.argv[2:]
    known = json.loads(oracle.FILE.read_text())
    versions = {int(key): tuple(pair) for key, pair in known["versions"].items()}
    oracle.warm(bootstrap)
    ours = oracle.run(bootstrap, versions, only, say=lambda text: print(text, file=sys.stderr, flush=True))
    ours = json.loads(json.dumps(ours))
    count = collections.Counter()
    for name, steps in ours.items():
        for difference in compare.scenario(name, known["scenarios"].get(name, []), steps):
            count[name] += 1
            print(difference)
    print(f"{sum(count.values())} differences: {dict(count)}")


if __name__ == "__main__":
    main()
