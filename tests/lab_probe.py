"""What this machine can do to a broker: prints one line for each fault that the tests use. `make lab-probe`."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import lab

ROWS = []


def probe(name, use):
    def register(body):
        ROWS.append((name, use, body))
        return body
    return register


def ran(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.stderr or done.stdout).strip().splitlines()[-1:] or done.returncode


@probe("ext4 on loop, shutdown ioctl", "power cuts")
def shutdown(place):
    disk = lab.Disk(place, 64 << 20)
    try:
        with open(disk.mount / "synced", "wb") as out:
            out.write(b"x" * 8192)
            os.fsync(out.fileno())
        (disk.mount / "unsynced").write_bytes(b"y" * 8192)
        disk.cut()
        disk.detach()
        disk.attach()
        assert (disk.mount / "synced").read_bytes() == b"x" * 8192, "a synced file is gone"
        gone = not (disk.mount / "unsynced").exists() or (disk.mount / "unsynced").read_bytes() != b"y" * 8192
        assert gone, "an unsynced file has survived"
    finally:
        disk.close()


@probe("ENOSPC of a small tmpfs", "a full disk")
def tmpfs(place):
    ran("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place))
    try:
        with open(place / "file", "wb") as out:
            try:
                os.posix_fallocate(out.fileno(), 0, 4 << 20)
            except OSError as error:
                assert error.errno == 28, error
            else:
                raise AssertionError("no ENOSPC")
    finally:
        ran("umount", str(place))


@probe("strace inject", "failing and slow calls")
def strace(place):
    done = subprocess.run(
        ["strace", "-f", "-e", "inject=fsync:error=EIO:when=1", sys.executable, "-c",
         f"import os\nf = open({str(place / 'file')!r}, 'w')\ntry: os.fsync(f.fileno())\nexcept OSError as e: print(e.errno)"],
        capture_output=True, text=True, timeout=60,
    )
    assert done.stdout.strip() == "5", done.stderr.strip().splitlines()[-1:]


@probe("LD_PRELOAD", "failing calls without a tracer")
def preload(place):
    assert shutil.which("cc"), "no cc"
    (place / "shim.c").write_text("#include <errno.h>\nint fdatasync(int fd) { errno = EIO; return -1; }\n")
    ran("cc", "-shared", "-fPIC", "-o", str(place / "shim.so"), str(place / "shim.c"))
    done = subprocess.run(
        [sys.executable, "-c", f"import os\nf = open({str(place / 'file')!r}, 'w')\ntry: os.fdatasync(f.fileno())\nexcept OSError as e: print(e.errno)"],
        capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": str(place / "shim.so")}, timeout=60,
    )
    assert done.stdout.strip() == "5", done.stderr.strip()


def controller(name, files):
    def body(place):
        root = pathlib.Path("/sys/fs/cgroup")
        if (root / "cgroup.controllers").exists():
            raise AssertionError("cgroup version 2; the tests know version 1")
        mounted = None
        parent = root / name
        if not parent.is_dir():
            mounted = place
            ran("mount", "-t", "cgroup", "-o", name, "none", str(place))
            parent = place
        group = parent / "sluice-probe"
        try:
            group.mkdir()
            missing = [file for file in files if not (group / file).exists()]
            assert not missing, f"no {missing}"
        finally:
            if group.exists():
                group.rmdir()
            if mounted:
                ran("umount", str(mounted))
    return body


probe("blkio cgroup", "a slow disk")(controller("blkio", ["blkio.throttle.write_bps_device"]))
probe("freezer cgroup", "a stalled process")(controller("freezer", ["freezer.state"]))
probe("memory cgroup", "memory at its limit")(controller("memory", ["memory.limit_in_bytes"]))


@probe("network namespaces, veth", "clients on another machine")
def netns(place):
    ran("ip", "netns", "add", "sluice-probe")
    try:
        ran("ip", "link", "add", "sluice-p0", "type", "veth", "peer", "name", "sluice-p1")
        ran("ip", "link", "del", "sluice-p0")
    finally:
        ran("ip", "netns", "del", "sluice-probe")


@probe("nftables", "one-way partitions, resets")
def nft(place):
    ran("nft", "add", "table", "inet", "sluice_probe")
    ran("nft", "delete", "table", "inet", "sluice_probe")


@probe("toxiproxy", "latency and cut answers between broker and store")
def toxiproxy(place):
    import harness

    found = shutil.which("toxiproxy-server") or next((harness.CACHE / "peers").glob("**/toxiproxy-server*"), None)
    assert found or shutil.which("go"), "neither toxiproxy-server nor a Go toolchain to build it"


@probe("time namespace", "jumps of the monotonic clock")
def time_namespace(place):
    ran("unshare", "-T", "--monotonic", "1000", "true")


@probe("SIGSTOP", "a process that sleeps and wakes")
def stop(place):
    assert hasattr(ctypes.CDLL(None), "kill"), "no kill"


def main():
    missing = 0
    for name, use, body in ROWS:
        place = pathlib.Path(tempfile.mkdtemp(prefix="sluice-lab-"))
        try:
            body(place)
            said = "works"
        except Exception as error:  # A probe may fail in any way: that is its answer.
            missing += 1
            said = f"MISSING: {error}"
        finally:
            shutil.rmtree(place, ignore_errors=True)
        print(f"{name:<30} {use:<46} {said}")
    print(f"{len(ROWS) - missing} of {len(ROWS)} parts work here; what is missing is skipped loudly by the tests that need it")


if __name__ == "__main__":
    main()
