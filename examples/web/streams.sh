#!/usr/bin/env bash
# Creates the streams of the pages. Arguments: the program, and its options, such as `--server HOST:PORT`.
#
#   examples/web/streams.sh target/release/switchyard
set -euo pipefail

switchyard=${1:-switchyard}
shift || true

# What was said. One event per topic, and each message has a topic of its own: a recall takes its place.
"$switchyard" stream create chat 'chat.rooms.*' 'chat.messages.*.*.*' \
    --max-events-per-topic 1 --max-age 30d --max-bytes 256MiB "$@"
# Who is here. Not worth a disk.
"$switchyard" stream create chat-here 'chat.here.*.*.*' --storage memory --max-events-per-topic 1 "$@"
# Strokes of drawings.
"$switchyard" stream create draw 'draw.strokes.*.*.*' 'draw.cleared.*' \
    --max-events-per-topic 1 --max-age 30d --max-bytes 64MiB "$@"
