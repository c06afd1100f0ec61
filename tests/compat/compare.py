"""Two transcripts side by side: what differs, and whether it may."""

import dataclasses

import allowed


@dataclasses.dataclass
class Difference:
    scenario: str
    step: int
    api: str
    version: int
    note: str
    path: str
    kafka: object
    ours: object

    def __str__(self):
        return (f"{self.scenario}[{self.step}] {self.api} v{self.version} {self.note!r} {self.path}: "
                f"Kafka {self.kafka!r}, ours {self.ours!r}")


def fields(theirs, ours, path=""):
    """(path, theirs, ours) of every leaf that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in [*theirs, *(one for one in ours if one not in theirs)]:
            yield from fields(theirs.get(name, "absent"), ours.get(name, "absent"), f"{path}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for number, (one, other) in enumerate(zip(theirs, ours)):
            yield from fields(one, other, f"{path}[{number}]")
    elif theirs != ours:
        yield path, theirs, ours


def scenario(name, theirs, ours):
    """The differences of one scenario that are not allowed."""
    for number in range(max(len(theirs), len(ours))):
        if number >= len(theirs) or number >= len(ours):
            side = theirs if number < len(theirs) else ours
            yield Difference(name, number, side[number]["api"], side[number]["version"], side[number].get("note", ""), "step",
                             "there" if side is theirs else "absent", "there" if side is ours else "absent")
            return
        one, other = theirs[number], ours[number]
        for path, kafka, mine in fields(one["answer"], other["answer"]):
            found = Difference(name, number, one["api"], one["version"], one.get("note", ""), path, kafka, mine)
            if not allowed.reason(found):
                yield found
