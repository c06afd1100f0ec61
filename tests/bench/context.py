"""What a part is given: its side, a place, servers that are removed when it is over."""

import os
import shutil
import time

import harness
import loads
import servers


class Context:
    def __init__(self, side, place, quick, results, shared):
        self.side, self.place, self.quick = side, place, quick
        self.results = results
        # Kept from part to part and round to round.
        self.shared = shared
        self.opened = []

    def pick(self, full, quick):
        return quick if self.quick else full

    def start(self, wait=True, **more):
        """A broker on an empty directory."""
        peaks = lambda label, mib, bound: self.results.peak(self.side, label, mib, bound)  # noqa: E731
        server = servers.SERVERS[self.side](self.place / f"{self.side}-{len(self.opened)}", peaks, **more)
        self.opened.append(server.remove)
        server.start()
        if wait:
            server.wait_first_record()
        return server

    def need_minio(self):
        if not harness.MINIO.exists():
            raise loads.Failed("MinIO is not installed: run `make test-all` once, or install it with tests/peers/lib.sh")

    def minio(self):
        server = harness.Minio(self.place / f"minio-{len(self.opened)}")
        self.opened.append(server.stop)
        return server

    def close(self):
        """Ends and removes everything that was opened."""
        for close in reversed(self.opened):
            close()
        shutil.rmtree(self.place, ignore_errors=True)


def run_part(part, side, place, quick, results, shared):
    """One part on one broker. Whatever fails is noted; what was measured stays."""
    context = Context(side, place, quick, results, shared)
    place.mkdir(parents=True)
    began = time.monotonic()
    try:
        for step in part.run(context):
            try:
                results.add(part, side, step())
            except Exception as error:
                results.fail(part, side, reason(error))
    except Exception as error:
        results.fail(part, side, reason(error))
    finally:
        context.close()
        results.took(part, side, time.monotonic() - began)


def reason(error):
    if os.environ.get("BENCH_TRACE"):
        import traceback

        traceback.print_exception(error)
    text = str(error).strip().replace("\n", " ") or repr(error)
    return f"{type(error).__name__}: {text[:400]}"
