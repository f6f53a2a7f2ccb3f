#!/bin/sh
# RabbitMQ 4.3 beside the system's own, for the tests: Debian testing in a folder, entered by chroot. Needs root.
#
#   rabbitmq43.sh build   makes it, once; takes some minutes and 500 MB. Two at one time: the second waits
#   rabbitmq43.sh where   prints its folder, which serves as RABBITMQ_HOME; builds nothing, and says why it is missing
#
# It is kept in $MODELMQ_RABBITMQ43, by default ~/.cache/modelmq/rabbitmq-4.3; Debian comes from $MODELMQ_DEBIAN_MIRROR.
# Whatever is mounted is mounted in a namespace of its own, so that it is gone with its process, however that ends.
set -eu
LC_ALL=C
export LC_ALL

HERE=$(cd "$(dirname "$0")" && pwd)
FOLDER=${MODELMQ_RABBITMQ43:-${HOME:-/root}/.cache/modelmq/rabbitmq-4.3}
MIRROR=${MODELMQ_DEBIAN_MIRROR:-https://deb.debian.org/debian}
WANTED=4.3
ROOT=$FOLDER/root
DRAFT=$FOLDER/root.new
LOG=$FOLDER/build.log
WHY=$FOLDER/why-not # what stood in the way last time, for those who only ask
SCRIPTS=/usr/share/debootstrap/scripts
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "$*"
    if [ -w "$FOLDER" ]; then printf '%s\n' "$*" >"$WHY"; fi
    exit 1
}

version() { cat "$ROOT/modelmq-version" 2>/dev/null; }

may_enter() { [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; }

require_rights() {
    [ "$(id -u)" = 0 ] || fail "Only root can build and start RabbitMQ $WANTED beside the system's: run this as root."
    may_enter || fail "This root may not make mount namespaces (unshare -m), as in a container without the right to:" \
        "RabbitMQ $WANTED cannot be started beside the system's."
}

# --- Building ---------------------------------------------------------------------------------------------------

build() {
    if [ "$(id -u)" = 0 ]; then mkdir -p "$FOLDER"; fi
    require_rights
    exec 9>"$FOLDER/lock"
    flock 9
    if ! version >/dev/null; then
        command -v debootstrap >/dev/null 2>&1 || "$HERE/bootstrap.sh" debootstrap || fail \
            "debootstrap, which makes RabbitMQ $WANTED's folder, is missing and could not be installed."
        make_root
    fi
    write_launchers
    rm -f "$WHY"
}

make_root() {
    forget_draft
    say "Building RabbitMQ $WANTED from Debian testing in $FOLDER, once; this takes some minutes ..."
    : >"$LOG"
    link_script testing
    if [ -f "$KEYS" ] && bootstrap "--keyring=$KEYS"; then
        :
    elif grep -q -i 'keyring\|public key\|signature\|gpgv' "$LOG" || [ ! -f "$KEYS" ]; then
        # This system's keys are older than the release; https vouches for the server at least.
        say "The keys of this system do not know Debian testing: its signature is not checked."
        forget_draft
        bootstrap --no-check-gpg || give_up
    else
        give_up
    fi
    rm -rf "$DRAFT"/var/cache/apt/archives/*.deb "$DRAFT"/var/lib/apt/lists/*
    # Nodes are named after it; debootstrap leaves the table of names to whoever installs.
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$DRAFT/etc/hosts"
    # The last thing that is written: who finds it has found a whole system.
    chroot "$DRAFT" dpkg-query -W -f '${Version}\n' rabbitmq-server >"$DRAFT/modelmq-version"
    case "$(cat "$DRAFT/modelmq-version")" in
        "$WANTED".*) ;;
        *) fail "Debian testing has RabbitMQ $(cat "$DRAFT/modelmq-version") and no longer $WANTED: name a mirror that" \
            "has it in MODELMQ_DEBIAN_MIRROR, as snapshot.debian.org." ;;
    esac
    rm -rf "$ROOT"
    mv "$DRAFT" "$ROOT"
}

bootstrap() {
    # It holds the lock as well, should this script be killed. Packages start nothing: there is no init, and debootstrap
    # puts a stand-in in place of start-stop-daemon.
    unshare -m sh -c 'mount --make-rprivate / && exec "$@"' sh \
        debootstrap --variant=minbase --include=rabbitmq-server "$1" testing "$DRAFT" "$MIRROR" >>"$LOG" 2>&1
}

give_up() { fail "RabbitMQ $WANTED could not be built from $MIRROR: $(tail -n 1 "$LOG"). Its log is $LOG."; }

# debootstrap has a script for each release that was known when it was packed, and they hardly differ.
link_script() { [ -e "$SCRIPTS/$1" ] || ln -s sid "$SCRIPTS/$1"; }

# What an interrupted build left. Nothing can be mounted below it, but removing it would be grave if something were.
forget_draft() {
    if grep -q -F " $DRAFT/" /proc/mounts; then fail "Something is mounted below $DRAFT: unmount it, then try again."; fi
    rm -rf "$DRAFT"
}

# --- Entering ---------------------------------------------------------------------------------------------------

# The folder looks like any RABBITMQ_HOME. Its programs enter the other system and become the ones of there, with the
# same pid, environment and paths: all of this machine is seen from there but what the system itself consists of.
write_launchers() {
    mkdir -p "$FOLDER/sbin" "$FOLDER/bin"
    write "$FOLDER/sbin/rabbitmq-env" 644 <<'END'
# Sourced by the programs beside it.
enter() {
    root=$(cd "$(dirname "$0")/.." && pwd -P)/root
    exec unshare -m sh -c '
        set -e
        root=$1
        mount --make-rprivate /
        for folder in /*; do
            case "$folder" in /bin | /sbin | /lib* | /usr | /etc) continue ;; esac
            if [ -L "$folder" ] || [ ! -d "$folder" ]; then continue; fi
            [ -d "$root$folder" ] || mkdir -p "$root$folder"
            mount --rbind "$folder" "$root$folder"
        done
        shift
        exec chroot "$root" "$@"
    ' enter "$root" env -C "$PWD" "$@"
}
END
    launcher sbin/rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
    launcher sbin/rabbitmqctl /usr/lib/rabbitmq/bin/rabbitmqctl
    launcher bin/epmd /usr/bin/epmd
    launcher bin/erl /usr/bin/erl
}

launcher() {
    write "$FOLDER/$1" 755 <<END
#!/bin/sh
. "\$(dirname "\$0")/../sbin/rabbitmq-env"
enter $2 "\$@"
END
}

write() {
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

case "${1:-}" in
    build) build ;;
    where)
        require_rights
        version >/dev/null || fail "$(cat "$WHY" 2>/dev/null || echo "It is not built: run $0 build, as root.")"
        printf '%s\n' "$FOLDER"
        ;;
    *) fail "usage: $0 build | where" ;;
esac
