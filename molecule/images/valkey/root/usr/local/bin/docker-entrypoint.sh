#!/bin/sh
# A configuration file or options alone are meant for the server. Data is for the server's user only.
set -eu
case ${1:-} in
  -* | *.conf) set -- valkey-server "$@" ;;
esac
if [ "$1" = valkey-server ] || [ "$1" = redis-server ]; then
  umask 0077
  # Inside a container the network decides who comes in; passwords and ACLs work as ever.
  # shellcheck disable=SC2086 # a list of options
  set -- "$@" --protected-mode no ${VALKEY_EXTRA_FLAGS:-}
fi
exec "$@"
