"""A store that is gone, slow, broken, throttling or lying: produce and hot reads go on, nothing is lost, nothing wrong is
served, the cause is named, and it heals by itself."""

import os
import time

import pytest

import harness
import wire
from faulty_store import CUT, FLIPPED, LOST, STUCK, Reply, ScriptedStore, Toxiproxy
from test_kills import PARTITIONS, TOPIC, Load, check

STORAGE_ERROR = 56
COLD, COLD_RECORDS, COLD_BYTES = "cold", 500, 60_000


def state(broker):
    return int(broker.metrics()["sluice_storage_store_state"])


def cold_value(number):
    return (b"cold %06d " % number) * (COLD_BYTES // 12)


def fill_cold(broker):
    """Writes so much that its beginning is in no memory, and waits until it lies in objects."""
    broker.cli("topic", "create", COLD)
    connection = wire.Connection(broker.bootstrap)
    for number in range(COLD_RECORDS):
        error, base = connection.produce(COLD, {0: wire.batch([cold_value(number)])})[0]
        assert (error, base) == (0, number)
    connection.close()
    harness.wait_until(
        lambda: broker.metrics()["sluice_storage_wal_unuploaded_bytes"] == 0, 60, "everything uploaded")


def read_cold(broker, offset):
    """(error, seconds, right) of a fetch at a cold offset."""
    connection = wire.Connection(broker.bootstrap, seconds=60)
    began = time.monotonic()
    error, _, data = wire.fetched(connection.ask(1, 4, wire.fetch(COLD, 0, offset)))
    seconds = time.monotonic() - began
    connection.close()
    assert error or b"cold %06d " % offset in data, "an empty answer where there is data"
    return error, seconds


def serve(place, minio, endpoint, name="broker"):
    settings = ["upload.age.max=300ms", "memory.max=32MiB", "wal.size.max=256MiB"]
    environment = {**minio.environment, "AWS_ENDPOINT_URL": endpoint}
    store = f"s3://{minio.bucket}/faults-{os.getpid()}-{name}-{time.monotonic_ns()}"
    return harness.Broker(place, settings=settings, environment=environment, store=store).start()


def settle(broker, load):
    """Ends the load; everything acknowledged can be read and lies in objects."""
    load.stop()
    harness.wait_until(lambda: state(broker) == 0, 30, "the store counts as healthy")
    harness.wait_until(
        lambda: broker.metrics()["sluice_storage_wal_unuploaded_bytes"] == 0, 60, "everything uploaded")
    return check(load, broker.bootstrap)


def load_on(broker):
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    return Load(broker.bootstrap, producers=2, pause=0.005).start()


@pytest.fixture
def toxiproxy(place, minio):
    proxy = Toxiproxy(place, f"127.0.0.1:{minio.port}")
    yield proxy
    proxy.stop()


@pytest.fixture
def scripted(minio):
    store = ScriptedStore(f"127.0.0.1:{minio.port}")
    yield store
    store.stop()


def test_twenty_seconds_without_a_store_lose_nothing(place, minio, toxiproxy):
    broker = serve(place, minio, toxiproxy.endpoint)
    fill_cold(broker)
    load = load_on(broker)
    assert read_cold(broker, 0)[0] == 0
    toxiproxy.up(False)
    down = time.monotonic()
    harness.wait_until(lambda: state(broker) == 2, 15, "the outage is seen")
    before = load.delivered()
    slowest = 0.0
    offset = 10
    while time.monotonic() - down < 20:
        # Another cold offset each time: no cache answers.
        offset += 17
        error, seconds = read_cold(broker, offset)
        assert error in (0, STORAGE_ERROR)
        slowest = max(slowest, seconds)
        assert broker.ready(), "readiness does not depend on the store"
        status = broker.get("/v1/status")
        assert '"down"' in status and "remedy" in status, status
        time.sleep(0.5)
    assert load.delivered() > before + 200, "produce goes on"
    assert slowest < 12, slowest
    log = broker.log_path.read_text(errors="replace")
    assert "object store is down" in log and "remedy" in log, broker.tail()
    toxiproxy.up(True)
    harness.wait_until(lambda: state(broker) == 0, 20, "it heals by itself")
    harness.wait_until(lambda: read_cold(broker, 3)[0] == 0, 20, "cold reads heal")
    assert settle(broker, load) > 500
    assert broker.stop() == 0


def test_bad_connections_to_the_store_lose_nothing(place, minio, toxiproxy):
    broker = serve(place, minio, toxiproxy.endpoint)
    fill_cold(broker)
    load = load_on(broker)
    for number, (kind, attributes) in enumerate([
        ("latency", {"latency": 400, "jitter": 200}),
        ("reset_peer", {"timeout": 50}),
        ("timeout", {"timeout": 0}),
        ("slow_close", {"delay": 1000}),
        ("limit_data", {"bytes": 40_000}),
        ("bandwidth", {"rate": 400}),
    ]):
        toxiproxy.toxic(kind, **attributes)
        until = time.monotonic() + 2.5
        offset = 20 + number
        while time.monotonic() < until:
            offset += 31
            error, seconds = read_cold(broker, offset % COLD_RECORDS)
            assert error in (0, STORAGE_ERROR), (kind, error)
            assert seconds < 30, (kind, seconds)
        toxiproxy.heal()
        harness.wait_until(lambda: read_cold(broker, 5 + number)[0] == 0, 30, f"{kind}: cold reads heal")
    assert settle(broker, load) > 500
    assert broker.stop() == 0


def once_each(actions):
    """A rule that meets each (method, action) once, with the first such request for data."""
    left = list(actions)

    def rule(method, path, _):
        if "/data/" in path and left and left[0][0] == method:
            return left.pop(0)[1]
        return None

    rule.left = left
    return rule


def test_what_a_store_may_say_is_understood(place, minio, scripted):
    broker = serve(place, minio, scripted.endpoint)
    fill_cold(broker)
    load = load_on(broker)

    # Puts: the answer lost after success, then 412 for our own; 409; 500; 503.
    scripted.rule = once_each([
        ("PUT", LOST), ("PUT", Reply(409, "ConditionalRequestConflict")), ("PUT", Reply(500, "InternalError")), ("PUT", LOST),
    ])
    harness.wait_until(lambda: not scripted.rule.left, 30, "each answer was given")
    harness.wait_until(lambda: broker.metrics()["sluice_storage_store_own_writes_total"] >= 2, 20, "our own puts are known")
    assert "another content" not in broker.log_path.read_text(errors="replace")

    # Reads: cut, stuck and wrong bytes once each are healed by another request.
    for number, action in enumerate([CUT, FLIPPED, STUCK, Reply(503, "SlowDown"), Reply(429), Reply(500)]):
        scripted.rule = once_each([("GET", action)])
        assert read_cold(broker, 60 + 40 * number)[0] == 0, action
        assert not scripted.rule.left, "the read met it"

    # Wrong for ever: that range is refused, other ranges and topics go on.
    scripted.rule = lambda method, path, _: FLIPPED if method == "GET" and "/data/" in path else None
    assert read_cold(broker, 330)[0] == STORAGE_ERROR
    before = load.delivered()
    harness.wait_until(lambda: load.delivered() > before + 50, 10, "produce goes on")
    scripted.rule = None
    assert read_cold(broker, 330)[0] == 0, "nothing wrong was kept"

    # Throttled: slowed down, not hammered.
    scripted.rule = lambda *_: Reply(503, "SlowDown")
    began = time.monotonic()
    harness.wait_until(lambda: state(broker) == 1, 10, "throttling is seen")
    time.sleep(3)
    sent = [at for at, *_ in scripted.seen if at > began]
    assert len(sent) < 60, f"{len(sent)} requests to a store that said slow down"

    # The clock is wrong: an outage with a name and a remedy.
    scripted.rule = lambda *_: Reply(403, "RequestTimeTooSkewed")
    harness.wait_until(lambda: '"clock_skew"' in broker.get("/v1/status"), 20, "the cause is named")
    assert "NTP" in broker.log_path.read_text(errors="replace")
    scripted.rule = None
    assert settle(broker, load) > 500
    assert broker.stop() == 0
