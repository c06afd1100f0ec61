"""Disks that are full, slow, stalled or failing: produce waits or is refused, fetch goes on, nothing acknowledged is lost."""

import os
import signal
import time

import harness
import lab
import wire
from test_kills import PARTITIONS, TOPIC, Load, check

# Both are tried again by clients.
STORAGE_ERROR, TIMED_OUT = 56, 7


def loaded(broker, **more):
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    load = Load(broker.bootstrap, **more).start()
    harness.wait_until(lambda: load.delivered() > 1000, 60, "load")
    return load


def test_a_full_disk_refuses_produce_serves_fetch_and_recovers(place):
    """Everything is on the disk that a neighbour fills: log, metadata and objects."""
    disk = lab.disk(place, 768 << 20)
    try:
        broker = harness.Broker(
            place, settings=["wal.size.max=128MiB", "upload.age.max=300ms", "upload.size.max=1MiB"]
        )
        broker.data = disk.mount / "data"
        load = loaded(broker, value_bytes=4000)
        broker.cli("topic", "create", "other")
        ballast = disk.fill()

        def refused():
            assert broker.running(), broker.tail()
            return broker.metrics().get("sluice_wal_prepare_errors_total", 0) > 0

        harness.wait_until(refused, 60, "the log has no room")
        connection = wire.Connection(broker.bootstrap, seconds=60)
        deadline, error = time.monotonic() + 60, 0
        while error == 0 and time.monotonic() < deadline:
            error = connection.produce("other", {0: wire.batch([b"more" * 200_000])}, timeout_ms=500)[0][0]
        assert error in (STORAGE_ERROR, TIMED_OUT), error
        # Metadata goes on beside it: a command is answered, whether there is room or not.
        broker.cli("topic", "create", "meanwhile", check=False)
        error, _, data = wire.fetched(connection.ask(1, 4, wire.fetch(TOPIC, 0, 0)))
        assert error == 0 and data, "fetch goes on"
        connection.close()
        time.sleep(2)
        assert broker.running(), broker.tail()
        ballast.unlink()
        before = load.delivered()
        harness.wait_until(lambda: load.delivered() > before + 1000 or load.errors, 60, "produce goes on by itself")
        load.stop()
        assert broker.starts == 1
        print(check(load, broker.bootstrap), "records over a full disk")
        broker.kill()
    finally:
        for one in harness.Broker.made:
            if one.running():
                one.kill()
        disk.close()


def test_a_failing_sync_of_metadata_ends_the_process(place):
    """EIO for the metadata store: nothing is acknowledged behind it, and the next start has all that was."""
    broker = harness.Broker(place, settings=["upload.age.max=200ms"])
    load = loaded(broker)
    (task,) = lab.task_of(broker.process.pid, "meta")[:1]
    with lab.injected(task, "fdatasync,fsync,sync_file_range", "error=EIO:when=3+", place / "strace.log", follow=False):
        code = broker.wait_exit(60)
    assert code == 70, f"exit {code}\n{broker.tail()}"
    assert "nput/output error" in broker.tail() or "os error 5" in broker.tail(), broker.tail()
    broker.start()
    load.stop()
    print(check(load, broker.bootstrap), "records after EIO in metadata")
    broker.kill()


def test_slow_writes_delay_answers_and_lose_nothing(place):
    """Each write of the log takes a second and more: produce waits, nothing times out for good, nothing is lost."""
    broker = harness.Broker(place, settings=["upload.age.max=1s"])
    load = loaded(broker)
    with lab.injected(broker.process.pid, "pwrite64,pwritev,pwritev2", "delay_exit=1200000", place / "strace.log", follow=True):
        time.sleep(4)
        before = load.delivered()
        harness.wait_until(lambda: load.delivered() > before or load.errors, 60, "answers, late")
        assert broker.running(), broker.tail()
    before = load.delivered()
    harness.wait_until(lambda: load.delivered() > before + 1000 or load.errors, 60, "full speed again")
    load.stop()
    print(check(load, broker.bootstrap), "records over a slow disk")
    broker.kill()


def test_a_throttled_device_slows_produce_and_loses_nothing(place):
    """The block layer lets 2 MiB a second through to the disk."""
    disk = lab.disk(place, 512 << 20)
    try:
        number = os.stat(disk.device).st_rdev
        limit = f"{os.major(number)}:{os.minor(number)} {2 << 20}"
        broker = harness.Broker(place, settings=["wal.size.max=64MiB", "upload.age.max=1s"])
        broker.data = disk.mount / "data"
        load = loaded(broker, value_bytes=4000)
        with lab.cgroup("blkio", {"blkio.throttle.write_bps_device": limit}, "sluice-slow") as group:
            (group / "cgroup.procs").write_text(str(broker.process.pid))
            time.sleep(1)
            before = load.delivered()
            time.sleep(5)
            assert broker.running(), broker.tail()
            slow = load.delivered() - before
        before = load.delivered()
        harness.wait_until(lambda: load.delivered() > before + 1000 or load.errors, 60, "full speed again")
        load.stop()
        assert slow > 0, "nothing went through"
        print(check(load, broker.bootstrap), f"records, {slow} in 5 s of a throttled disk")
        broker.kill()
    finally:
        for one in harness.Broker.made:
            if one.running():
                one.kill()
        disk.close()


def test_a_stalled_process_wakes_and_loses_nothing(place):
    """Stopped for longer than clients wait, then woken: what it had in flight is answered or sent again, once."""
    broker = harness.Broker(place, settings=["upload.age.max=300ms"])
    load = loaded(broker)
    broker.process.send_signal(signal.SIGSTOP)
    time.sleep(12)
    broker.process.send_signal(signal.SIGCONT)
    before = load.delivered()
    harness.wait_until(lambda: load.delivered() > before + 1000 or load.errors, 60, "load goes on")
    assert broker.running(), broker.tail()
    load.stop()
    print(check(load, broker.bootstrap), "records over a stall")
    broker.kill()
