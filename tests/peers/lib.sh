# Sourced. Real programs of others that the tests run beside or against the product; all from the package registries,
# kept under $SLUICE_CACHE between runs. Servers listen on loopback only.
SLUICE_CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
PEERS=$SLUICE_CACHE/peers
PEERS_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$PEERS/bin"

need_tool() { # TOOL PACKAGE...: installs PACKAGE as root when TOOL is missing, else says what to install
    local tool=$1; shift
    command -v "$tool" >/dev/null && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing $tool; install it with: sudo apt-get install -y $*" >&2
        return 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

fresh() { # STAMP TEXT: true when STAMP already holds TEXT
    [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]
}

install_python() {
    local wanted stamp=$PEERS/python/.stamp
    wanted=$(sha256sum "$PEERS_SOURCE/requirements.txt")
    fresh "$stamp" "$wanted" && return 0
    rm -rf "$PEERS/python"
    python3 -m venv "$PEERS/python"
    "$PEERS/python/bin/pip" install -q --disable-pip-version-check -r "$PEERS_SOURCE/requirements.txt"
    echo "$wanted" > "$stamp"
}

install_kafka() { # the broker, the command line tools and the Java clients, from Maven
    local wanted stamp=$PEERS/kafka/.stamp
    wanted=$(cat "$PEERS_SOURCE"/kafka/* "$PEERS_SOURCE/lib.sh" | sha256sum)
    fresh "$stamp" "$wanted" && return 0
    need_tool java default-jdk-headless
    need_tool mvn maven
    rm -rf "$PEERS/kafka"; mkdir -p "$PEERS/kafka/classes"
    mvn -q -B -f "$PEERS_SOURCE/kafka/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PEERS/kafka/libs"
    cp "$PEERS_SOURCE/kafka/log4j2.properties" "$PEERS/kafka/"
    javac -d "$PEERS/kafka/classes" -cp "$PEERS/kafka/libs/*" "$PEERS_SOURCE"/kafka/*.java
    local tool class
    while read -r tool class; do
        printf '#!/usr/bin/env bash\nexec java ${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true -Dlog4j2.configurationFile="%s" -cp "%s" %s "$@"\n' \
            "$PEERS/kafka/log4j2.properties" "$PEERS/kafka/libs/*:$PEERS/kafka/classes" "$class" > "$PEERS/bin/$tool"
        chmod +x "$PEERS/bin/$tool"
    done < "$PEERS_SOURCE/kafka/tools"
    # The broker and the perf tool run as their makers ship them: server-class collector, all tiers.
    sed -i 's/-XX:+UseSerialGC -XX:TieredStopAtLevel=1/-XX:+UseG1GC/' "$PEERS/bin/kafka-server" "$PEERS/bin/kafka-producer-perf-test" "$PEERS/bin/kafka-consumer-perf-test"
    echo "$wanted" > "$stamp"
}

install_minio() {
    local version=v0.0.0-20260212201848-7aac2a2c5b7c stamp=$PEERS/minio/.stamp
    fresh "$stamp" "$version" && return 0
    need_tool go golang-go
    mkdir -p "$PEERS/minio"
    GOBIN=$PEERS/minio GOFLAGS=-trimpath go install "github.com/minio/minio@$version"
    echo "$version" > "$stamp"
}

install_toxiproxy() {
    local version=v2.5.0 stamp=$PEERS/toxiproxy/.stamp
    fresh "$stamp" "$version" && return 0
    need_tool go golang-go
    mkdir -p "$PEERS/toxiproxy"
    GOBIN=$PEERS/toxiproxy GOFLAGS=-trimpath go install "github.com/Shopify/toxiproxy/v2/cmd/server@$version"
    echo "$version" > "$stamp"
}
