"""What /proc says: CPU seconds, memory, how busy the machine is with other things."""

import os
import re
import resource
import shutil
import time

TICK = os.sysconf("SC_CLK_TCK")
# Above these something else runs, and figures would be its as much as ours.
OTHERS_SHARE_MAX = 0.10
SAMPLE_SECONDS = 2.0


def cpu_seconds(pid):
    """User and system time of a process, all its threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{field}:\s+(\d+)", file.read()).group(1)) / 1024


def peak_mib(pid):
    return memory_mib(pid, "VmHWM")


def reset_peak(pid):
    """The peak counts from now on."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def busy_seconds():
    """CPU seconds of the whole machine that were not idle."""
    with open("/proc/stat") as file:
        fields = [int(word) for word in file.readline().split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / TICK


def own_seconds():
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Others:
    """Share of the machine's CPU that went to others than us. Our children must have ended when it is read."""

    def __init__(self):
        self.busy, self.own, self.began = busy_seconds(), own_seconds(), time.monotonic()

    def share(self):
        span = (time.monotonic() - self.began) * os.cpu_count()
        others = (busy_seconds() - self.busy) - (own_seconds() - self.own)
        return max(0.0, others / span)


def loaded():
    """Why the machine is too busy to measure on, or None."""
    others = Others()
    time.sleep(SAMPLE_SECONDS)
    share, load = others.share(), os.getloadavg()[0]
    if share > OTHERS_SHARE_MAX:
        return f"other processes take {share:.0%} of the CPU (load {load:.1f})"
    if load > 2 * os.cpu_count():
        return f"load is {load:.1f}"
    return None


def drop_caches():
    """Writes dirty pages out and drops the page cache. Needs root."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("1")


def free_gib(place):
    return shutil.disk_usage(place).free / (1 << 30)
