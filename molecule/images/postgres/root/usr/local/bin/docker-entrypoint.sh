#!/bin/bash
# First start: make the cluster, the user and the database from the environment and run the init scripts.
# Every start: become the server. Settings are those of the upstream image (POSTGRES_*).
set -Eeuo pipefail

# $1 = name of a setting: take it from the file that <name>_FILE names, when that is set.
read_setting() {
  local file="$1_FILE"
  if [[ -n ${!1:-} && -n ${!file:-} ]]; then
    echo "error: both $1 and $file are set: keep one" >&2
    exit 1
  fi
  [[ -z ${!file:-} ]] || export "$1=$(<"${!file}")"
  unset "$file"
}

# The server of the first start listens on its socket only, so nobody meets a half-made database.
server() {
  pg_ctl --pgdata "$PGDATA" --wait "$@"
}

run_sql() {
  psql --variable ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

init_scripts() {
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh)
        echo "running $script"
        if [[ -x $script ]]; then "$script"; else . "$script"; fi
        ;;
      *.sql)
        echo "running $script"
        run_sql --file "$script"
        ;;
      *.sql.gz)
        echo "running $script"
        gunzip --stdout "$script" | run_sql
        ;;
      '/docker-entrypoint-initdb.d/*') ;;
      *) echo "ignoring $script" ;;
    esac
  done
}

init_cluster() {
  local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z ${POSTGRES_PASSWORD:-} && $method != trust ]]; then
    echo "error: the database is empty and POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) is not set" >&2
    exit 1
  fi
  local arguments=()
  read -r -a arguments <<<"${POSTGRES_INITDB_ARGS:-}"
  initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "${POSTGRES_PASSWORD:-}") "${arguments[@]}"
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

  export PGPASSWORD=${POSTGRES_PASSWORD:-}
  server --options "-c listen_addresses=''" start
  if [[ $POSTGRES_DB != postgres ]]; then
    POSTGRES_DB=postgres run_sql --variable name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
  fi
  init_scripts
  server --mode fast stop
  # The server would carry it in its environment for as long as it runs.
  unset PGPASSWORD POSTGRES_PASSWORD
}

# Options alone are meant for the server.
[[ ${1:-} != -* ]] || set -- postgres "$@"

if [[ $1 == postgres ]]; then
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA"
  if [[ ! -s $PGDATA/PG_VERSION ]]; then
    read_setting POSTGRES_PASSWORD
    read_setting POSTGRES_USER
    read_setting POSTGRES_DB
    read_setting POSTGRES_INITDB_ARGS
    export POSTGRES_USER=${POSTGRES_USER:-postgres}
    export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    init_cluster
  fi
fi
exec "$@"
