"""deploy/prices.toml: what requests cost."""

import functools
import pathlib
import tomllib

FILE = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "prices.toml"


@functools.cache
def read():
    """Price lists, in the order of the file."""
    with open(FILE, "rb") as file:
        return tuple(PriceList(**one) for one in tomllib.load(file).values())


class PriceList:
    def __init__(self, name, currency, storage_per_gb_month, **per_1000):
        self.name, self.currency, self.storage_per_gb_month = name, currency, storage_per_gb_month
        self.per_1000 = {key.removesuffix("_per_1000").upper(): value for key, value in per_1000.items()}


def row(price):
    return f"requests to write 1 TB, {price.currency}, {price.name}"


def per_terabyte(price, counts, value_bytes):
    """Money for the requests that 10^12 bytes of values take, at the measured ratio."""
    money = sum(price.per_1000[kind] * count / 1000 for kind, count in counts.items())
    return money * 1e12 / value_bytes
