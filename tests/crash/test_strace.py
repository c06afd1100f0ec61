"""What the kernel saw: the log's write has returned before the answer's write begins, and few writes carry many partitions."""

import re
import subprocess

import harness
import wire

WRITES = "trace=pwrite64,pwritev,pwritev2,writev,write,sendto,sendmsg,fdatasync"


def traced(broker, path):
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-ttt", "-T", "-y", "-s", "9000", "-e", WRITES, "-o", str(path), "-p",
         str(broker.process.pid)],
        start_new_session=True,
    )
    status = f"/proc/{broker.process.pid}/status"
    harness.wait_until(
        lambda: "TracerPid:\t0" not in open(status).read(), 10, "strace attached"
    )
    return tracer


def calls(path):
    """(begin, end, text) of each call; the halves of an interrupted line are joined."""
    open_calls, out = {}, []
    for line in open(path, errors="replace"):
        found = re.match(r"(\d+)\s+(\d+\.\d+) (.*)", line)
        if not found:
            continue
        task, at, text = found.group(1), float(found.group(2)), found.group(3)
        if text.endswith("<unfinished ...>"):
            open_calls[task] = (at, text)
            continue
        took = re.search(r"<(\d+\.\d+)>$", text)
        if text.startswith("<... ") and task in open_calls:
            begin, head = open_calls.pop(task)
            out.append((begin, begin + float(took.group(1)) if took else at, head + text))
        elif took:
            out.append((at, at + float(took.group(1)), text))
    return sorted(out)


def test_an_answer_leaves_only_after_the_write_of_its_batch(place):
    broker = harness.Broker(place)
    broker.start()
    broker.cli("topic", "create", "seen")
    connection = wire.Connection(broker.bootstrap, seconds=60)
    connection.produce("seen", {0: wire.batch([b"warm"])})
    tracer = traced(broker, place / "trace")
    answered = 200
    # One more than is looked at: the tracer may lose the very last call.
    for number in range(answered + 1):
        assert connection.produce("seen", {0: wire.batch([b"MARK-%06d-" % number])})[0][0] == 0
    tracer.terminate()
    tracer.wait()
    broker.kill()
    trace = calls(place / "trace")
    log_writes, answers = {}, []
    for begin, end, text in trace:
        if "/wal/" in text and "pwrite" in text:
            for mark in re.findall(r"MARK-(\d{6})-", text):
                log_writes[int(mark)] = end
        elif re.match(r"(writev|write|sendto|sendmsg)\(\d+<(socket|TCP)", text):
            answers.append(begin)
    assert set(log_writes) >= set(range(answered)), f"{len(log_writes)} log writes carry a mark"
    # One connection, one request at a time: the n-th socket write is the n-th answer.
    answers = answers[:answered]
    assert len(answers) == answered
    for number, begin in enumerate(answers):
        assert log_writes[number] <= begin, f"answer {number} began before its log write returned"


def test_one_produce_to_a_thousand_partitions_takes_few_log_writes(place):
    broker = harness.Broker(place)
    broker.start()
    broker.cli("topic", "create", "wide", "--partitions", 1000)
    connection = wire.Connection(broker.bootstrap, seconds=60)
    everywhere = {partition: wire.batch([b"x" * 100]) for partition in range(1000)}
    # The first write of each partition also opens it.
    assert all(error == 0 for error, _ in connection.produce("wide", everywhere).values())
    tracer = traced(broker, place / "trace")
    answer = connection.produce("wide", everywhere)
    tracer.terminate()
    tracer.wait()
    broker.kill()
    assert len(answer) == 1000 and all(error == 0 for error, _ in answer.values())
    writes = [text for _, _, text in calls(place / "trace") if "/wal/" in text and "pwrite" in text]
    print(f"{len(writes)} log writes for 1,000 partitions")
    assert 1 <= len(writes) <= 8
