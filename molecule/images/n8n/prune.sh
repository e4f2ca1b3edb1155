#!/bin/sh
# Halve a tree of node modules ($1) for one processor ($2, as Node.js names it): remove what only people, compilers, browsers and other machines read.
set -eu
cd "$1"
find . -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' -o -name '*.md' \) -delete
here=linux-$2
find . -type d -path '*/prebuilds/*' -name '*-*' ! -name "$here*" -prune -exec rm -rf {} +
# The sources of sqlite3 and librdkafka, compiled by now or never; optional programs with browsers of their own.
rm -rf sqlite3/deps sqlite3/build/Release/obj* @confluentinc/kafka-javascript/deps agent-browser chromadb-js-bindings-*
