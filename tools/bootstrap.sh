#!/bin/sh
# Sets up what the Makefile's targets need, each only when it is missing:
#
#   bootstrap.sh rabbitmq           RabbitMQ, from the operating system's packages
#   bootstrap.sh curl               curl, which the commands shown in the documentation are run with
#   bootstrap.sh debootstrap        debootstrap, which tools/rabbitmq43.sh builds a second RabbitMQ with
#   bootstrap.sh venv runtime|dev   .venv with what requirements/NAME.lock lists, and this project, editable
#
# A message-queue service of the whole system is neither started nor enabled, and one that is there is left alone:
# ModelMQ runs a private node of its own. Prints one line per thing done, and one sentence when something is missing.
set -eu
# What programs print is read here, so it must be in the language this was written in.
LC_ALL=C
export LC_ALL

ROOT=$(cd "$(dirname "$0")/.." && pwd)
SELF=$ROOT/tools/bootstrap.sh
SBIN=/usr/sbin
POLICY=$SBIN/policy-rc.d
THEIRS=$SBIN/policy-rc.d.before-modelmq
MARK="Placed by ModelMQ while it installs RabbitMQ"
VENV=.venv
MARKS=$VENV/modelmq # what was installed from: written when it is complete, so that an interrupted set-up is seen

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# --- RabbitMQ ---------------------------------------------------------------------------------------------------

has_rabbitmq() {
    [ -n "${RABBITMQ_HOME:-}" ] && [ -x "$RABBITMQ_HOME/sbin/rabbitmq-server" ] && return 0
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && return 0
    command -v rabbitmq-server >/dev/null 2>&1 || [ -x $SBIN/rabbitmq-server ]
}

rabbitmq() {
    if has_rabbitmq; then return 0; fi
    install_packages RabbitMQ "no system service is started or enabled" rabbitmq-server
    has_rabbitmq || fail \
        "The package rabbitmq-server was installed, yet there is no rabbitmq-server: set RABBITMQ_HOME to its folder."
}

# --- Python -----------------------------------------------------------------------------------------------------

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
makes_environments() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the Python to use: the one the lock files were made for first. Debian's own may come without ensurepip.
find_python() {
    incomplete=
    for python in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 /usr/bin/python3}; do
        is_recent "$python" || continue
        if makes_environments "$python"; then
            echo "$python"
            return 0
        fi
        incomplete=${incomplete:-$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')}
    done
    case "$incomplete" in
        "") fail "ModelMQ needs Python 3.11 or later, and ${PYTHON:-python3} is not: install it (on Debian 12 its" \
            "package is python3), or name one, as in 'PYTHON=/path/to/python3 make up'." ;;
        /usr/bin/*) ;;
        *) fail "$incomplete cannot make virtual environments, it has no ensurepip: install it with ensurepip, or" \
            "name another Python, as in 'PYTHON=/path/to/python3 make up'." ;;
    esac
    install_packages python3-venv "Debian keeps it apart from Python" python3-venv >&2
    makes_environments "$incomplete" || fail \
        "python3-venv was installed, yet $incomplete still has no ensurepip: install the venv package of its version."
    echo "$incomplete"
}

# The text that stands for an environment made from a lock file here: its hash, this folder, and Python's version.
mark_of() {
    cksum <"requirements/$1.lock"
    pwd
    "$VENV/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null || echo "no Python"
}
project_mark() { cksum <pyproject.toml; }

is_marked() { [ -f "$MARKS/$1" ] && [ "$(cat "$MARKS/$1")" = "$2" ]; }

venv() {
    cd "$ROOT"
    lock=$1
    [ -f "requirements/$lock.lock" ] || fail "There is no requirements/$lock.lock: run make lock where there is one."
    # Two makes at one time: the second waits, then finds everything done.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$SELF"
        flock 9
    fi
    # A second lock file adds to what the first one brought, for they agree; anything else starts afresh.
    agrees || make_environment
    if [ ! -f "$MARKS/$lock" ]; then
        say "Installing the packages of requirements/$lock.lock into $VENV ..."
        pip install --require-hashes -r "requirements/$lock.lock"
        mark_of "$lock" >"$MARKS/$lock.new"
        mv "$MARKS/$lock.new" "$MARKS/$lock"
    fi
    if ! is_marked project "$(project_mark)"; then
        # What builds the project is in the lock files, so nothing is downloaded that no hash vouches for.
        pip install --no-deps --no-build-isolation --editable .
        project_mark >"$MARKS/project.new"
        mv "$MARKS/project.new" "$MARKS/project"
    fi
}

# Whether there is an environment, complete, and made from what the lock files still say.
agrees() {
    [ -d "$MARKS" ] && [ ! -e "$MARKS/unfinished" ] || return 1
    for mark in "$MARKS"/runtime "$MARKS"/dev; do
        [ -f "$mark" ] || continue
        is_marked "${mark##*/}" "$(mark_of "${mark##*/}")" || return 1
    done
}

make_environment() {
    python=$(find_python) || exit 1
    rm -rf "$VENV"
    say "Making $VENV with $("$python" --version) ..."
    "$python" -m venv "$VENV" || fail "$python could not make the virtual environment $VENV: see above."
    mkdir "$MARKS"
}

pip() {
    : >"$MARKS/unfinished"
    "$VENV/bin/python" -m pip --disable-pip-version-check --quiet "$@" >&2 || fail \
        "The packages could not be installed: see above. Is there a network? Then run make again."
    rm -f "$MARKS/unfinished"
}

# --- apt --------------------------------------------------------------------------------------------------------

# install_packages WHAT NOTE PACKAGE...: this script again, as root already or through sudo.
install_packages() {
    what=$1
    doing="Installing $1 from the operating system's packages ($2) ..."
    shift 2
    command -v apt-get >/dev/null 2>&1 || fail \
        "$what is missing and this system has no apt-get: install it with the system's own package manager" \
        "(on Debian its packages are: $*), then run make again."
    if [ "$(id -u)" = 0 ]; then
        say "$doing"
        ("$SELF" install-as-root "$@") || exit 1
    elif command -v sudo >/dev/null 2>&1; then
        say "$doing"
        sudo "$SELF" install-as-root "$@" || exit 1
    else
        fail "$what is missing, and only an administrator may install it: as root, run" \
            "'apt-get install $*', then run make again."
    fi
}

# A unit that came with a package of before belongs to the administrator; only those we bring are switched off.
units_on_disk() {
    for unit in rabbitmq-server.service epmd.service epmd.socket; do
        if [ -e "/lib/systemd/system/$unit" ] || [ -e "/usr/lib/systemd/system/$unit" ]; then echo "$unit"; fi
    done
}

switch_off_new_units() {
    for unit in $(units_on_disk); do
        case " $units_before " in *" $unit "*) continue ;; esac
        # The Debian helper keeps the package's own records true; systemctl may be absent, as in a container. It
        # works only for scripts of packages, which it knows by this variable.
        if command -v deb-systemd-helper >/dev/null 2>&1; then
            DPKG_MAINTSCRIPT_PACKAGE=$unit deb-systemd-helper disable "$unit" >>"$LOG" 2>&1 || true
        fi
        if command -v systemctl >/dev/null 2>&1; then systemctl disable "$unit" >>"$LOG" 2>&1 || true; fi
        if [ "$unit" = rabbitmq-server.service ] && [ -e /etc/init.d/rabbitmq-server ]; then
            update-rc.d rabbitmq-server disable >>"$LOG" 2>&1 || true
        fi
    done
}

# Debian's packages start their services unless policy-rc.d forbids it; ours forbids these and asks theirs for others.
forbid_starting() {
    allow_starting # what an installation that was killed may have left
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then mv "$POLICY" "$THEIRS"; fi
    cat >"$POLICY.new" <<END
#!/bin/sh
# $MARK.
case " \$* " in *" rabbitmq-server"*|*" epmd"*) exit 101 ;; esac
if [ -x $THEIRS ]; then exec $THEIRS "\$@"; fi
exit 0
END
    chmod 755 "$POLICY.new"
    mv "$POLICY.new" "$POLICY"
}

allow_starting() {
    if [ -f "$POLICY" ] && grep -q "$MARK" "$POLICY"; then rm -f "$POLICY"; fi
    rm -f "$POLICY.new"
    if [ -e "$THEIRS" ] || [ -L "$THEIRS" ]; then mv "$THEIRS" "$POLICY"; fi
}

restore() {
    trap '' HUP INT TERM
    allow_starting
    switch_off_new_units
    if [ "${installed:-}" = yes ]; then rm -f "$LOG"; fi
}

apt() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >>"$LOG" 2>&1
}

apt_install() { apt install --no-install-recommends "$@" && installed=yes; }

has_candidates() {
    for package in "$@"; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 1
    done
}

install_as_root() {
    LOG=$(mktemp "${TMPDIR:-/tmp}/modelmq-install.XXXXXX")
    units_before=$(units_on_disk | tr '\n' ' ')
    trap restore EXIT
    trap 'exit 130' HUP INT TERM
    forbid_starting
    updated=
    if ! has_candidates "$@"; then
        apt update || true
        updated=yes
        has_candidates "$@" || fail "The package sources of this system do not have: $*. See $LOG."
    fi
    if apt_install "$@"; then return 0; fi
    # An installation that was killed stands in the way of the next one; lists that are out of date name files
    # that are gone.
    DEBIAN_FRONTEND=noninteractive dpkg --configure -a >>"$LOG" 2>&1 || true
    if [ -z "$updated" ]; then apt update || true; fi
    if apt_install "$@"; then return 0; fi
    say "apt-get could not install $*; the end of $LOG:"
    tail -n 5 "$LOG" >&2
    exit 1
}

case "${1:-}" in
    rabbitmq) rabbitmq ;;
    curl) command -v curl >/dev/null 2>&1 || install_packages curl "the commands in the documentation are tested with it" curl ;;
    debootstrap) command -v debootstrap >/dev/null 2>&1 || install_packages debootstrap \
        "RabbitMQ 4.3 is built with it, for the tests" debootstrap ca-certificates wget ;;
    venv) venv "${2:?name a lock file: runtime or dev}" ;;
    install-as-root)
        shift
        install_as_root "$@"
        ;;
    *) fail "usage: $0 rabbitmq | curl | debootstrap | venv runtime|dev" ;;
esac
