#!/usr/bin/env bash
# Makes the environment that a make target needs, on a fresh Debian or Ubuntu machine too:
#
#   scripts/setup.sh build    .venv/ with the package installed in it (editable) and the C extension built
#   scripts/setup.sh run      that, and /dev/net/tun
#   scripts/setup.sh test     that, and the programs and Python packages of the tests and checks
#   scripts/setup.sh bench    the package with what the benchmark needs, and the libraries of the peers that it measures
#
# What is there already is left alone, so that a second call takes a moment. Debian packages are installed as root or through
# sudo; without either it says what is missing and goes on: what needs it then fails or is skipped, with its reason.
# PYTHON=... chooses the interpreter (3.11 or later).
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.setup # what was installed, and from which sources

say() { printf 'setup: %s\n' "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# Run a command as root: directly, or through sudo, which may ask for a password only where there is someone to ask.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { [ -z "${CI:-}" ] && [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

# Install Debian packages; they are tried one by one where they cannot all be had.
apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
    if ! have apt-get; then
        say "missing: $* (named as in Debian); install them by the means of this system"
    elif ! as_root true; then
        say "missing: $*; install them as root: apt-get install $*"
    else
        say "installing $*"
        as_root "${apt[@]}" update >/dev/null </dev/null || say "apt-get update failed; going on with the lists that are there"
        if ! as_root "${apt[@]}" install --no-install-recommends "$@" >/dev/null </dev/null; then
            local package
            for package in "$@"; do
                as_root "${apt[@]}" install --no-install-recommends "$package" >/dev/null </dev/null || say "$package could not be installed"
            done
        fi
    fi
}

is_good_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if have "$candidate" && is_good_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The interpreter, and what it takes to make a virtual environment and a C extension with it.
need_python() {
    if ! python=$(find_python); then
        if [ -n "${PYTHON:-}" ]; then
            say "PYTHON=$PYTHON is not a Python 3.11 or later"
            exit 1
        fi
        apt_install python3
        python=$(find_python) || apt_install python3.11
        python=$(find_python) || { say "Python 3.11 or later is needed; set PYTHON to where it is"; exit 1; }
    fi
    local version missing=()
    version=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=("$version-venv")
    have cc || have gcc || have clang || missing+=(gcc libc6-dev)
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=("$version-dev")
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
    "$python" -c 'import venv, ensurepip' 2>/dev/null || { say "$python cannot make a virtual environment: its venv module is missing"; exit 1; }
}

# Everything that an installation is made from: when it changes, it is made anew.
fingerprint() { { echo "$1 $python"; cat pyproject.toml; find native -maxdepth 1 -type f | LC_ALL=C sort | xargs cat; } | cksum; }

need_package() {
    local extras=$1 now
    now=$(fingerprint "$extras")
    if [ -x $VENV/bin/tunstack ] && [ "$(cat $STAMP 2>/dev/null)" = "$now" ]; then
        return
    fi
    # What `test` has installed stays when only `build` is asked for.
    if [ -z "$extras" ] && [ -x $VENV/bin/tunstack ] && [ "$(cat $STAMP 2>/dev/null)" = "$(fingerprint '[test,dev,bench]')" ]; then
        return
    fi
    if [ -e $VENV ] && ! is_good_python $VENV/bin/python; then
        say "$VENV is broken or of another Python: making it anew"
        rm -rf $VENV
    fi
    [ -e $VENV ] || "$python" -m venv $VENV
    say "installing tunstack$extras into $VENV"
    $VENV/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" </dev/null
    printf '%s\n' "$now" >$STAMP
}

need_tun() {
    [ -e /dev/net/tun ] && return
    as_root modprobe tun 2>/dev/null || true
    [ -e /dev/net/tun ] && return
    # A container without udev: the module may be there all the same.
    as_root mkdir -p /dev/net 2>/dev/null && as_root mknod -m 666 /dev/net/tun c 10 200 2>/dev/null || say "there is no /dev/net/tun"
}

# The programs that the tests run against us, with the packages that have them.
need_programs() {
    local pair missing=()
    for pair in curl:curl nc:netcat-openbsd tcpdump:tcpdump tshark:tshark wrk:wrk ab:apache2-utils ip:iproute2 ss:iproute2 \
        ping:iputils-ping tracepath:iputils-tracepath ssh:openssh-client sshd:openssh-server ethtool:ethtool iperf3:iperf3 nft:nftables \
        nmap:nmap netstat:net-tools sysctl:procps valgrind:valgrind; do
        have "${pair%%:*}" || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

# What scripts/bench/peers.py builds peers with; the benchmark names those that are missing, and goes on.
need_peers() {
    local missing=()
    have go || missing+=(golang-go)
    [ -d /usr/share/gocode/src/gvisor.dev ] || missing+=(golang-gvisor-gvisor-dev)
    [ -d /usr/include/lwip ] || missing+=(liblwip-dev)
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

case "${1:-}" in
build)
    need_python
    need_package ''
    ;;
run)
    need_python
    need_package ''
    need_tun
    ;;
test)
    need_programs
    need_python
    need_package '[test,dev,bench]'
    need_tun
    ;;
bench)
    need_python
    need_package '[test,dev,bench]'
    need_tun
    need_peers
    ;;
*)
    say "usage: scripts/setup.sh build|run|test|bench"
    exit 2
    ;;
esac
