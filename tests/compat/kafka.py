"""One real Apache Kafka on loopback: a KRaft node with its own defaults and no delays that only slow a test down."""

import os
import pathlib
import subprocess

import harness

VERSION = next((harness.CACHE / "peers" / "kafka" / "libs").glob("kafka-clients-*.jar")).stem.removeprefix("kafka-clients-")


class Kafka:
    def __init__(self, place, heap="512m", settings=()):
        self.place = pathlib.Path(place)
        self.port, controller = harness.free_port(), harness.free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.place.mkdir(parents=True)
        properties = self.place / "server.properties"
        properties.write_text("\n".join([
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
            f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners=PLAINTEXT://{self.bootstrap}", "controller.listener.names=CONTROLLER",
            f"log.dirs={self.place}/log", "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=5",
            "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=5",
            "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
            "group.initial.rebalance.delay.ms=0", *settings, "",
        ]))
        environment = {**os.environ, "KAFKA_HEAP_OPTS": f"-Xms{heap} -Xmx{heap}"}
        self.log = open(self.place / "kafka.log", "ab")
        subprocess.run([harness.TOOLS / "kafka-storage", "format", "-c", properties, "-t", "compat-kafka-cluster00"],
                       check=True, stdout=self.log, stderr=self.log)
        self.process = subprocess.Popen([harness.TOOLS / "kafka-server", properties], stdout=self.log, stderr=self.log,
                                        env=environment, start_new_session=True)

    def wait_ready(self, seconds=90):
        import socket

        def ready():
            assert self.process.poll() is None, "Kafka ended early"
            try:
                socket.create_connection((self.bootstrap.split(":")[0], self.port), timeout=1).close()
                return True
            except OSError:
                return False
        harness.wait_until(ready, seconds, "Kafka listens")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
