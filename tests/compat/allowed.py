"""The differences from Apache Kafka that are meant, each with its reason. Everything else fails the suite."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass
class Allowed:
    reason: str
    holds: Callable


ALLOWED = [
    Allowed("an error has a text that names the thing and the remedy where Kafka has none",
            lambda one: one.path.endswith("ErrorMessage") and one.kafka in (None, "") and one.ours == "text"),
]
used = set()


def reason(difference):
    """Why `difference` is allowed, or None."""
    for number, one in enumerate(ALLOWED):
        if one.holds(difference):
            used.add(number)
            return one.reason
    return None
