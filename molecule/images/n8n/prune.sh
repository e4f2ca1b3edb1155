#!/bin/sh
# prune.sh FOLDER CPU: halve a tree of node modules for one processor (as Node.js names it): remove what only people,
# compilers, browsers and other machines read.
set -eu
cd "$1"
# Node.js takes no TypeScript from node_modules, declarations or sources.
find . -type f \( -name '*.map' -o -name '*.[cm]ts' -o -name '*.ts' -o -name '*.tsx' -o -name '*.vue' -o -name '*.scss' \
  -o -name '*.md' -o -name '*.mdx' \) -delete
here=linux-$2
find . -type d -path '*/prebuilds/*' -name '*-*' ! -name "$here*" -prune -exec rm -rf {} +
# The sources of sqlite3 and librdkafka, compiled by now or never; optional programs with browsers of their own.
rm -rf sqlite3/deps sqlite3/build/Release/obj* @confluentinc/kafka-javascript/deps agent-browser chromadb-js-bindings-*
