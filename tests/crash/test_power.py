"""Power cuts: ext4 on a loop device, shut down under the broker without flushing its journal.

Log, metadata and the local object directory lie on it. Cut at random and while an upload, a commit or a trim is under way.
"""

import os
import pathlib
import random
import shutil
import time

import pytest

import harness
import lab
from test_kills import PARTITIONS, TOPIC, Load, check

CUTS = int(os.environ.get("SLUICE_POWER_CUTS", "50"))
# Met while the broker serves; None is any moment.
POINTS = ["storage.object.put", "storage.commit", "storage.trimmed", "wal.group.written", None]


@pytest.fixture
def disk(place):
    one = lab.disk(place)
    try:
        one.cut()
        one.detach()
        one.attach()
    except OSError as error:
        one.close()
        lab.lacks("power cuts", f"the kernel does not cut ext4's power: {error}")
    yield one
    one.close()


def held_at(broker, point, began):
    """True once the broker is held at `point` since its start; fails when it has ended instead."""
    assert broker.running(), broker.tail()
    return f"fail point {point}: sleeping" in broker.log_path.read_text(errors="replace")[began:]


def test_power_cuts_lose_nothing(place, disk):
    broker = harness.Broker(place, settings=["upload.age.max=100ms", "upload.size.max=1MiB", "wal.size.max=64MiB"])
    broker.data = disk.mount / "data"
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    load = Load(broker.bootstrap).start()
    chance, met = random.Random(20), set()
    try:
        for number in range(CUTS):
            point = POINTS[number % len(POINTS)]
            broker.kill()
            before, began = load.delivered(), broker.log_path.stat().st_size
            if point:
                # Held at the point while the power goes. It may be met before the broker serves.
                nth = chance.randint(20, 200) if point == "wal.group.written" else chance.randint(1, 3)
                broker.spawn(f"{point}={nth}:sleep(600)")
                harness.wait_until(lambda: held_at(broker, point, began), 60, point)
                met.add(point)
                time.sleep(chance.uniform(0, 0.1))
            else:
                broker.start()
                harness.wait_until(lambda: load.delivered() > before or load.errors, 60, f"progress before cut {number}")
                time.sleep(chance.uniform(0, 0.3))
            disk.cut()
            time.sleep(0.02)
            broker.kill()
            disk.detach()
            disk.attach()
        broker.start()
        load.stop()
        total = check(load, broker.bootstrap)
        assert CUTS < len(POINTS) or met == {point for point in POINTS if point}
        broker.fsck()
        print(f"{CUTS} power cuts, {load.delivered()} reports, {total} records")
    finally:
        load.stopping.set()
        if broker.running():
            broker.kill()


def test_a_cut_takes_what_was_not_synced(place, disk):
    """The test of the test: an unsynced file does not survive, a synced one does."""
    synced, unsynced = disk.mount / "synced", disk.mount / "unsynced"
    with open(synced, "wb") as out:
        out.write(b"x" * 8192)
        os.fsync(out.fileno())
    handle = os.open(disk.mount, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    pathlib.Path(unsynced).write_bytes(b"y" * 8192)
    disk.cut()
    disk.detach()
    disk.attach()
    assert synced.read_bytes() == b"x" * 8192
    assert not unsynced.exists() or unsynced.read_bytes() != b"y" * 8192
    shutil.rmtree(disk.mount / "lost+found", ignore_errors=True)
