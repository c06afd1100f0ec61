# The commands of this repository. Thin on purpose: what they do stands in the scripts they call.
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/target
BIN := $(CARGO_TARGET_DIR)/release/sluice
ARGS ?=

.PHONY: run build test test-all soak lab-probe bench compat oracle verify fix prerequisites help

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

run: build ## build and start one broker on loopback; ARGS="--data-dir X" go to `sluice serve`
	@exec $(BIN) serve $(ARGS)

build: prerequisites
	@[ -x $(BIN) ] || echo "first build: about 10 minutes on 2 cores, then seconds"
	@cargo build --release --locked --workspace --bins

test: prerequisites ## every test that runs in minutes: units, simulation, real clients, kill loops
	@tests/run quick

test-all: prerequisites ## test, and the long kill loops
	@tests/run all

soak: prerequisites ## hours: many seeds, many kills, many power cuts
	@tests/run soak

lab-probe: prerequisites ## which faults this machine can make: power cuts, full disks, failing calls, limits
	@. tests/peers/lib.sh && set -e && install_python && $$PEERS/python/bin/python tests/lab_probe.py

verify: prerequisites ## format, lints, docs, house rules; changes nothing
	@tests/verify

fix: prerequisites ## rewrite what can be rewritten: format, simple lints
	@cargo fmt --all
	@cargo clippy --release --locked --workspace --all-targets --fix --allow-dirty --allow-staged

compat: build ## answers held to Apache Kafka's, field by field
	@. tests/peers/lib.sh && set -e && install_python && install_kafka && $$PEERS/python/bin/python -m pytest -q -rP -p no:cacheprovider tests/compat

oracle: ## capture Apache Kafka's answers anew into tests/compat/oracle.json
	@. tests/peers/lib.sh && set -e && install_python && install_kafka && $$PEERS/python/bin/python tests/compat/oracle.py

prerequisites:
	@tests/prerequisites

bench: build ## Apache Kafka beside Sluice in one run, under an hour; QUICK=1 five minutes, ROWS=java,cold, WRITE=1 writes docs/benchmarks.md
	@. tests/peers/lib.sh && set -e && install_python && install_kafka && install_minio && \
	    QUICK="$(QUICK)" ROWS="$(ROWS)" ROUNDS="$(ROUNDS)" WRITE="$(WRITE)" BENCH_ANYWAY="$(BENCH_ANYWAY)" \
	    PYTHONDONTWRITEBYTECODE=1 $$PEERS/python/bin/python tests/bench/run.py
