#!/usr/bin/env bash
# Builds .venv from requirements.txt with the newest usable Python; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/../.."

# make puts .venv first; what is about to be rebuilt cannot build it.
PATH=${PATH//"$PWD/.venv/bin:"/}
python=$(bash molecule/shared/host.sh python)
wanted="$("$python" --version) $(sha256sum requirements.txt | cut -d' ' -f1)"
if [ "$(cat .venv/.stamp 2>/dev/null)" = "$wanted" ]; then exit 0; fi

printf '==> building .venv with %s (about half a minute)\n' "$("$python" --version)" >&2
rm -rf .venv
"$python" -m venv .venv
.venv/bin/pip install -qq --disable-pip-version-check --require-hashes --no-compile --requirement requirements.txt
# Ansible's hundred collections are most of it by far, and Ansible, which compiles them itself, would not read the result.
.venv/bin/python -W ignore -m compileall -qq -j 2 -x /ansible_collections/ .venv/lib
printf '%s\n' "$wanted" > .venv/.stamp
