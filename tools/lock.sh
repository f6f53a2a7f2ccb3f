#!/bin/sh
# Writes requirements/*.lock: every package that is installed anywhere here, with version and hashes.
#
#   lock.sh [pip-compile's options, such as --upgrade]
#
# dev.lock has runtime.lock's versions, so one environment serves both. Names of package indexes stay out of the files.
set -eu
cd "$(dirname "$0")/.."

compile() {
    target=$1
    shift
    CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --output-file "requirements/$target.lock" "$@"
}

compile runtime --extra demo --constraint requirements/constraints.in "$@" pyproject.toml requirements/build.in
compile dev --extra demo --extra dev --extra pulumi --constraint requirements/runtime.lock "$@" pyproject.toml requirements/build.in
compile bench "$@" requirements/bench.in
compile go "$@" requirements/go.in
