#!/usr/bin/env bash
# Makes sure this machine has what the project cannot install with pip. Each step says what it does and does
# nothing when the thing is already there. Usage: host.sh python | engine | engine_stop | load_tools | debootstrap | emulation | emulation_stop
set -euo pipefail

state=${PI_STATE:-.virtual-pi}

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

is_debian() { grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null; }

# install REMEDY PACKAGE...: installs on Debian/Ubuntu as root, otherwise says what to do by hand.
install() {
  local remedy=$1; shift
  if ! is_debian || [ "$(id -u)" -ne 0 ]; then die "$remedy"; fi
  say "installing $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# The newest Python that can build a virtual environment; of equals the one on PATH, then pyenv's.
find_python() {
  local minor candidate
  for minor in {20..11}; do
    for candidate in "python3.$minor" python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"3.$minor".*/bin/python3; do
      if "$candidate" -c "import ensurepip, ssl, sys, venv; sys.exit(sys.version_info[1] != $minor)" 2>/dev/null; then
        command -v "$candidate"
        return
      fi
    done
  done
  return 1
}

python() {
  find_python && return
  install "Python 3.11 or newer with venv is missing: install it (Debian/Ubuntu: apt-get install python3 python3-venv)" \
    python3 python3-venv
  find_python || die "this distribution's Python is older than 3.11: install a newer one, for example with pyenv"
}

# What loads a service and its Redis for `make bench`; a server does not come with it.
load_tools() {
  { command -v redis-benchmark || command -v valkey-benchmark; } >/dev/null && command -v wrk >/dev/null && return
  install "redis-benchmark and wrk are missing: install them (Debian/Ubuntu: apt-get install redis-tools wrk)" redis-tools wrk
}

engine_answers() { docker info >/dev/null 2>&1; }

engine() {
  engine_answers && return
  local remedy="no Docker engine answers: install and start one, and let this user talk to it (group docker), or run as root on Debian/Ubuntu"
  [ "$(id -u)" -eq 0 ] || die "$remedy"
  command -v dockerd >/dev/null && command -v iptables >/dev/null || install "$remedy" docker.io iptables
  # Debian 13 packs the client on its own.
  command -v docker >/dev/null || install "$remedy" docker-cli
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine (systemd)"
    systemctl start docker
  else
    say "starting the Docker engine (no systemd here; its log: $state/dockerd.log)"
    mkdir -p "$state"
    setsid dockerd --pidfile "$state/dockerd.pid" >"$state/dockerd.log" 2>&1 </dev/null &
  fi
  for _ in $(seq 60); do
    engine_answers && return
    sleep 1
  done
  tail -n 20 "$state/dockerd.log" >&2 2>/dev/null || journalctl -u docker -n 20 --no-pager >&2
  die "the Docker engine did not answer within 60 s; its last lines are above"
}

# Ends the engine only where this checkout started it, by its process id.
engine_stop() {
  [ -f "$state/dockerd.pid" ] || return 0
  local pid
  pid=$(cat "$state/dockerd.pid")
  # After a restart of this computer the number may be somebody else's.
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != dockerd ]; then return 0; fi
  if [ -n "$(docker ps -q)" ]; then
    say "the Docker engine (pid $pid) stays: other containers run on it"
    return 0
  fi
  say "stopping the Docker engine that make started (pid $pid)"
  kill "$pid"
  for _ in $(seq 30); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 1
  done
  die "the Docker engine (pid $pid) did not stop within 30 s"
}

debootstrap() {
  [ -x /usr/sbin/debootstrap ] && [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] && return
  install "no image registry answers and debootstrap is missing: install debootstrap and debian-archive-keyring" \
    debootstrap debian-archive-keyring
}

# Lets the kernel start aarch64 programs with our own QEMU: a distribution's may be too old for systemd.
emulation() {
  [ "$(uname -m)" = aarch64 ] && return
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc ||
    die "binfmt_misc cannot be mounted: run as root on a kernel that has it, or use an arm64 machine"
  say "having the kernel start aarch64 programs with QEMU"
  emulator register
  mkdir -p -m 0700 "$state"
  touch "$state/emulation"
}

# The kernel has one such rule for all: only where this checkout's machine needed it may it go.
emulation_stop() {
  if [ ! -e "$state/emulation" ] || [ ! -e /proc/sys/fs/binfmt_misc/pi-commerce-aarch64 ]; then return 0; fi
  say "taking the emulation of aarch64 out of the kernel"
  emulator remove
}

emulator() {
  docker run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --security-opt systempaths=unconfined pi-commerce/emulator:10.0 "$1"
}

case ${1:-} in
  python | engine | engine_stop | load_tools | debootstrap | emulation | emulation_stop) "$1" ;;
  *) die "usage: host.sh python | engine | engine_stop | load_tools | debootstrap | emulation | emulation_stop" ;;
esac
