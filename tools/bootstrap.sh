#!/bin/sh
# Sets up what the Makefile's targets need, each only when it is missing:
#
#   bootstrap.sh rabbitmq       RabbitMQ, from the operating system's packages
#   bootstrap.sh venv LOCK...   .venv with what the lock files name, and this project, editable
#
# A message-queue service of the whole system is neither started nor enabled, and one that is there is left alone:
# ModelMQ runs a private node of its own. Prints one line per thing done, and one sentence when something is missing.
set -eu

SBIN=/usr/sbin
POLICY=$SBIN/policy-rc.d
THEIRS=$SBIN/policy-rc.d.before-modelmq
MARK="Placed by ModelMQ while it installs RabbitMQ"
LOG=${TMPDIR:-/tmp}/modelmq-install.$$.log

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
    say "Installing RabbitMQ from the operating system's packages (no system service is started or enabled) ..."
    install_packages RabbitMQ rabbitmq-server
    has_rabbitmq || fail "The package rabbitmq-server is installed, yet there is no rabbitmq-server: see $LOG."
}

# --- apt --------------------------------------------------------------------------------------------------------

# install_packages WHAT PACKAGE...: as root ourselves, or this script again through sudo.
install_packages() {
    what=$1
    shift
    command -v apt-get >/dev/null 2>&1 || fail \
        "$what is missing and this system has no apt-get: install it with the system's own package manager" \
        "(on Debian its packages are: $*), then run make again."
    if [ "$(id -u)" = 0 ]; then
        ("$0" install-as-root "$@") || exit 1
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$0" install-as-root "$@" || exit 1
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
        # The Debian helper keeps the package's own records true; systemctl may be absent, as in a container.
        if command -v deb-systemd-helper >/dev/null 2>&1; then
            deb-systemd-helper disable "$unit" >>"$LOG" 2>&1 || true
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
}

apt() {
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >>"$LOG" 2>&1
}

has_candidates() {
    for package in "$@"; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 1
    done
}

install_as_root() {
    : >"$LOG"
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
    apt install --no-install-recommends "$@" && return 0
    # Lists that are out of date name files that are gone.
    if [ -z "$updated" ] && apt update && apt install --no-install-recommends "$@"; then return 0; fi
    say "apt-get could not install $*; the end of $LOG:"
    tail -n 5 "$LOG" >&2
    exit 1
}

case "${1:-}" in
    rabbitmq) rabbitmq ;;
    install-as-root)
        shift
        install_as_root "$@"
        ;;
    *) fail "usage: $0 rabbitmq | venv LOCK..." ;;
esac
