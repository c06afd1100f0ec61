"""What every test against a real broker needs: start it, kill it, ask its HTTP side, run the stock tools.

Everything lives in a temporary directory and on loopback; only processes started here are ended, by pid.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

CACHE = pathlib.Path(
    os.environ.get("SLUICE_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sluice"
)
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
BINARY = TARGET / "release" / "sluice"
TOOLS = CACHE / "peers" / "bin"
MINIO = CACHE / "peers" / "minio" / "minio"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what):
    """Polls `condition` until it is true; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Broker:
    """One broker on a data directory. The port stays the same over restarts, so clients find it again."""

    # Every broker made, so that a failed test leaves none behind.
    made = []

    def __init__(self, directory, settings=(), environment=None, store=None, name="broker"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.data = self.directory / "data"
        self.log_path = self.directory / f"{name}.log"
        self.kafka_port, self.http_port = free_port(), free_port()
        self.settings, self.store = list(settings), store
        self.environment = dict(environment or {})
        self.process = None
        self.starts = 0
        Broker.made.append(self)

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.kafka_port}"

    @property
    def http(self):
        return f"127.0.0.1:{self.http_port}"

    def command(self):
        command = [str(BINARY), "serve", "--data-dir", str(self.data), "--listen", self.bootstrap]
        command += ["--http-listen", self.http]
        if self.store:
            command += ["--object-store", self.store]
        for pair in self.settings:
            command += ["--set", pair]
        return command

    def spawn(self, failpoints=None, wrap=()):
        """Starts the process without waiting for it to serve."""
        environment = {**os.environ, **self.environment}
        environment.pop("SLUICE_FAILPOINTS", None)
        if failpoints:
            environment["SLUICE_FAILPOINTS"] = failpoints
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [*wrap, *self.command()], stdout=self.log, stderr=self.log, env=environment,
            start_new_session=True,
        )
        self.starts += 1
        return self

    def start(self, failpoints=None, wrap=(), seconds=30):
        self.spawn(failpoints, wrap)
        self.wait_ready(seconds)
        return self

    def wait_ready(self, seconds=30):
        def ready():
            assert self.process.poll() is None, f"broker ended early:\n{self.tail()}"
            return self.ready()
        wait_until(ready, seconds, f"broker ready\n{self.tail()}")

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL, as a crash would."""
        if self.running():
            self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self, seconds=60):
        """SIGTERM, and waits for the drain. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.log.close()
        return code

    def wait_exit(self, seconds):
        code = self.process.wait(seconds)
        self.log.close()
        return code

    def tail(self, lines=40):
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            return answer.read().decode()

    def metrics(self):
        values = {}
        for line in self.get("/metrics").splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def cli(self, *arguments, check=True):
        """Runs a command of the binary against this broker and returns the finished process."""
        environment = {
            **os.environ, **self.environment,
            "SLUICE_BOOTSTRAP_SERVER": self.bootstrap, "SLUICE_HTTP": self.http,
        }
        done = subprocess.run(
            [str(BINARY), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def where(self):
        """Flags that let a command find this broker's store without the broker."""
        flags = ["--data-dir", str(self.data)]
        return flags + (["--object-store", self.store] if self.store else [])

    def fsck(self, grace="10m", offline=False):
        """The bucket holds what metadata says. Returns the report."""
        where = self.where() if offline else []
        done = self.cli("object", "fsck", "--grace", grace, "-o", "json", *where, check=False)
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def verify(self, sink, check=True):
        done = self.cli("sink", "verify", sink, *self.where(), "-o", "json", check=check)
        return done.returncode, (json.loads(done.stdout) if done.stdout.strip() else done.stderr)

    def tool(self, name, *arguments, check=True, seconds=180, **more):
        """Runs one of Kafka's own command line tools."""
        done = subprocess.run(
            [str(TOOLS / name), *map(str, arguments)], capture_output=True, text=True, timeout=seconds, **more
        )
        assert not check or done.returncode == 0, f"{name} {arguments}:\n{done.stdout}\n{done.stderr}"
        return done

    def sink_state(self, sink):
        return json.loads(self.get(f"/v1/sinks/{sink}"))


class Minio:
    """MinIO on loopback with one bucket."""

    user, secret, bucket = "sluice", "sluice-secret", "lake"

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        (self.directory / self.bucket).mkdir(parents=True)
        environment = {
            **os.environ, "MINIO_ROOT_USER": self.user, "MINIO_ROOT_PASSWORD": self.secret,
            "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off",
        }
        self.log = open(self.directory.parent / "minio.log", "ab")
        self.process = subprocess.Popen(
            [str(MINIO), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", str(self.directory)],
            stdout=self.log, stderr=self.log, env=environment, start_new_session=True,
        )
        wait_until(self.healthy, 60, "MinIO ready")

    def healthy(self):
        assert self.process.poll() is None, "MinIO ended"
        try:
            with urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.user, "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    @property
    def store(self):
        return f"s3://{self.bucket}/cluster"

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def require_binary():
    if not BINARY.exists():
        sys.exit(f"{BINARY} is missing: run `make build` first")
