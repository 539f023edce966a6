#!/usr/bin/env bash
# Installs what `make bench` compares the hub with into .tools/, at a pinned version. Apart from install-tools.sh, since
# no test needs it. Run it again at any time; what is in place is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=$PWD/.tools/bin
stamps=$PWD/.tools/stamps
version=v2.15.2

# The stamp is written only when the tool is in place, so an install that was interrupted is done again.
if [[ -x $bin/nats-server && -f $stamps/nats-server && $(<"$stamps/nats-server") == "$version" ]]; then
    echo "install-bench-tools: nats-server $version is in place"
    exit
fi
if ! command -v go >/dev/null; then
    echo "install-bench-tools: go is missing: it is needed for nats-server" >&2
    exit 1
fi
mkdir -p "$bin" "$stamps"
echo "install-bench-tools: installing nats-server $version (compiles it; can take minutes)"
GOBIN=$bin go install "github.com/nats-io/nats-server/v2@$version"
printf '%s\n' "$version" >"$stamps/nats-server"
