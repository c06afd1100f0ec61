"""librdkafka's producer at full speed: rdkafka_load.py BOOTSTRAP TOPIC RECORDS RECORD_BYTES. Prints JSON."""

import json
import sys
import time

import confluent_kafka


def main():
    bootstrap, topic, records, record_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})
    value = bytes(65 + index % 26 for index in range(record_bytes))
    latencies, errors = [], []

    def delivered(error, message):
        if error:
            errors.append(str(error))
        elif len(latencies) < records:
            latencies.append(message.latency())

    began = time.monotonic()
    for number in range(records):
        while True:
            try:
                # One in a hundred tells its latency: a callback for each would make Python the limit.
                producer.produce(topic, value, callback=delivered if number % 100 == 0 else None)
                break
            except BufferError:
                producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    seconds = time.monotonic() - began
    if left or errors:
        sys.exit(f"{left} records not delivered; {errors[:1]}")
    latencies.sort()
    at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]  # noqa: E731
    print(json.dumps({
        "megabytes_per_second": records * record_bytes / 1e6 / seconds, "bytes": records * record_bytes,
        "p50_ms": at(0.5), "p99_ms": at(0.99),
    }))


if __name__ == "__main__":
    main()
