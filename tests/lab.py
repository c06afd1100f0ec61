"""Faults that a machine can make: a file system whose power can be cut, one that is full, calls that fail or take long.

What a machine lacks is skipped with one loud line and counted; CI does not accept a skip.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import pytest

import harness

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def lacks(part, reason):
    """Skips the test that asks, loud and counted."""
    marker = os.environ.get("SLUICE_SKIPPED")
    if marker:
        with open(marker, "a") as out:
            out.write(f"{part}: {reason}\n")
    print(f"\n!!! SKIPPED: {part}: {reason}\n")
    pytest.skip(f"{part}: {reason}")


class Disk:
    """An ext4 file system on a loop device. Its power can be cut: what was not synced is gone."""

    def __init__(self, place, size=3 << 30):
        self.image, self.mount = pathlib.Path(place) / "image", pathlib.Path(place) / "mount"
        self.mount.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(self.image)], check=True)
        self.device = subprocess.run(
            ["losetup", "--show", "-f", str(self.image)], check=True, capture_output=True, text=True
        ).stdout.strip()
        self.attach()

    def attach(self):
        subprocess.run(["mount", "-t", "ext4", self.device, str(self.mount)], check=True)

    def cut(self):
        handle = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def detach(self):
        harness.wait_until(
            lambda: subprocess.run(["umount", str(self.mount)], capture_output=True).returncode == 0, 30, "unmounted"
        )

    def fill(self, name="ballast", leave=0):
        """Takes all room but `leave` bytes, as a careless neighbour would."""
        free = os.statvfs(self.mount)
        bytes_free = free.f_bavail * free.f_frsize - leave
        path = self.mount / name
        with open(path, "ab") as out:
            while bytes_free > 0:
                step = min(bytes_free, 16 << 20)
                try:
                    os.posix_fallocate(out.fileno(), os.fstat(out.fileno()).st_size, step)
                except OSError:
                    if step <= 4096:
                        break
                    bytes_free = step // 2
                    continue
                bytes_free -= step
        return path

    def free(self):
        free = os.statvfs(self.mount)
        return free.f_bavail * free.f_frsize

    def close(self):
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True)
        subprocess.run(["losetup", "-d", self.device], capture_output=True)


def disk(place, size=3 << 30):
    """A disk, or a counted skip."""
    try:
        return Disk(place, size)
    except (OSError, subprocess.CalledProcessError) as error:
        lacks("ext4 on a loop device", error)


def task_of(pid, name):
    """Ids of the threads of `pid` whose name begins with `name`."""
    tasks = f"/proc/{pid}/task"
    return sorted(int(task) for task in os.listdir(tasks) if open(f"{tasks}/{task}/comm").read().startswith(name))


@contextlib.contextmanager
def injected(task, calls, fault, log, follow=False):
    """Calls of a thread (or, with `follow`, of a process) that fail or take long, by strace."""
    if not shutil.which("strace"):
        lacks("strace", "not installed")
    command = ["strace", "-q", *(["-f"] if follow else []), "-p", str(task), "-e", f"trace={calls}",
               "-e", f"inject={calls}:{fault}"]
    tracer = subprocess.Popen(command, stderr=open(log, "wb"), stdout=subprocess.DEVNULL, start_new_session=True)
    status = f"/proc/{task}/status"
    harness.wait_until(lambda: tracer.poll() is not None or "TracerPid:\t0" not in open(status).read(), 10, "strace attached")
    try:
        yield tracer
    finally:
        tracer.terminate()
        tracer.wait()


@contextlib.contextmanager
def cgroup(controller, settings, name):
    """A cgroup of version 1 or 2 with `settings` ({file: value} for each version); yields its directory."""
    root = pathlib.Path("/sys/fs/cgroup")
    old = root / controller
    if (root / "cgroup.controllers").exists():
        lacks(f"{controller} cgroup", "version 2 is mounted; these tests know version 1")
    parent = old if old.is_dir() else None
    mounted = None
    try:
        if parent is None:
            mounted = pathlib.Path(tempfile.mkdtemp(prefix=f"sluice-{controller}-"))
            subprocess.run(["mount", "-t", "cgroup", "-o", controller, "none", str(mounted)], check=True, capture_output=True)
            parent = mounted
        group = parent / name
        group.mkdir(exist_ok=True)
        for file, value in settings.items():
            (group / file).write_text(str(value))
    except (OSError, subprocess.CalledProcessError) as error:
        if mounted:
            subprocess.run(["umount", str(mounted)], capture_output=True)
        lacks(f"{controller} cgroup", error)
    try:
        yield group
    finally:
        for task in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(task)
        with contextlib.suppress(OSError):
            group.rmdir()
        if mounted:
            subprocess.run(["umount", str(mounted)], capture_output=True)
            mounted.rmdir()
