"""The two brokers: Apache Kafka as it comes with a 1 GiB heap, and Sluice as it comes."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import time

import harness
import process
import wire

GRACE_MIB = 64
DEFAULT_MEMORY_MIB = 128
STOP_SECONDS = 180


@dataclasses.dataclass
class Spent:
    """What a broker used while something ran."""

    cpu: float = 0.0
    peak_mib: float = 0.0
    seconds: float = 0.0

    def per_gib(self, value_bytes):
        return self.cpu / (value_bytes / (1 << 30)) if value_bytes else None


class Server:
    """One broker on a directory of its own, removed with it."""

    name = ""
    # Every server made, so that a failed part leaves none behind.
    made = []

    def __init__(self, place, peaks):
        self.place = pathlib.Path(place)
        self.place.mkdir(parents=True)
        self.process, self.peaks, self.began = None, peaks, None
        Server.made.append(self)

    def wait_first_record(self, topic=None, seconds=300):
        """Seconds from the start of the process to the first acknowledged record, of `topic` or of a new one."""
        while True:
            assert self.process.poll() is None, f"{self.name} ended early:\n{self.log_tail()}"
            waited = time.monotonic() - self.began
            assert waited < seconds, f"{self.name}: no record acknowledged within {seconds} s"
            try:
                connection = wire.Connection(self.bootstrap, seconds=10)
                if topic is None:
                    body = wire.struct.pack(">i", 1) + wire.string("first")
                    connection.ask(19, 2, body + wire.struct.pack(">ihiiib", 1, 1, 0, 0, 5000, 0))
                answer = connection.produce(topic or "first", {0: wire.batch([b"x"])})
                connection.close()
                if answer[0][0] == 0:
                    return time.monotonic() - self.began
            except (OSError, AssertionError):
                pass
            time.sleep(0.002)

    def cpu(self):
        return process.cpu_seconds(self.process.pid)

    def rss(self):
        return process.memory_mib(self.process.pid)

    @contextlib.contextmanager
    def measure(self, label):
        """Notes CPU, wall time and peak memory of what runs inside."""
        spent = Spent()
        process.reset_peak(self.process.pid)
        cpu, began = self.cpu(), time.monotonic()
        yield spent
        spent.cpu, spent.seconds = self.cpu() - cpu, time.monotonic() - began
        spent.peak_mib = process.peak_mib(self.process.pid)
        self.peaks(label, spent.peak_mib, self.memory_bound)

    def log_tail(self, lines=20):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def launch(self, command, environment):
        with open(self.log_path, "ab") as log:
            self.began = time.monotonic()
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
            )

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """SIGTERM and the drain; SIGKILL when that takes too long."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop within {STOP_SECONDS} s") from None

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()

    def remove(self):
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)


class Kafka(Server):
    """One KRaft node, broker and controller."""

    name = "kafka"
    memory_bound = None

    def __init__(self, place, peaks, **_):
        super().__init__(place, peaks)
        port, controller = harness.free_port(), harness.free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self.log_path = self.place / "kafka.log"
        self.properties = self.place / "server.properties"
        self.properties.write_text(
            f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://{self.bootstrap}\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={self.place}/log\noffsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        )
        with open(self.log_path, "ab") as log:
            subprocess.run(
                [harness.TOOLS / "kafka-storage", "format", "-c", self.properties, "-t", "bench-kafka-cluster-00"],
                check=True, stdout=log, stderr=log,
            )

    def start(self):
        self.launch([harness.TOOLS / "kafka-server", self.properties], {"KAFKA_HEAP_OPTS": "-Xms1g -Xmx1g"})
        return self


class Sluice(Server):
    """One broker of the binary that was built."""

    name = "sluice"

    def __init__(self, place, peaks, settings=(), store=None, environment=None, memory_mib=DEFAULT_MEMORY_MIB):
        super().__init__(place, peaks)
        if memory_mib != DEFAULT_MEMORY_MIB:
            settings = [*settings, f"memory.max={memory_mib}MiB"]
        self.memory_bound = memory_mib + GRACE_MIB
        self.broker = harness.Broker(self.place, settings=settings, store=store, environment=environment)
        self.bootstrap, self.log_path = self.broker.bootstrap, self.broker.log_path

    def start(self):
        self.launch(self.broker.command(), self.broker.environment)
        self.broker.process = self.process
        return self

    def metrics(self):
        return self.broker.metrics()

    def wait_uploaded(self, seconds=60):
        """Waits until the store has all that was written."""
        harness.wait_until(
            lambda: self.metrics()["sluice_storage_wal_unuploaded_bytes"] == 0, seconds, "everything uploaded"
        )


SERVERS = {"kafka": Kafka, "sluice": Sluice}
