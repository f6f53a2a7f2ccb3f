#!/bin/sh
# Runs the checks one after another, also past one that fails, and says at the end which passed.
#
#   checks.sh static              formatting, lint, types, import direction
#   checks.sh all [pytest's ...]  these, then the tests
set -u
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
export PATH
unset PYTHONDONTWRITEBYTECODE # or each of many processes compiles all tests anew
unset PYTHONUNBUFFERED # users have none, and what is still in a buffer at the end is part of what is tested

failed=
summary=

check() {
    name=$1
    shift
    printf '== %s: %s\n' "$name" "$*"
    "$@"
    status=$?
    # Ctrl-C was meant for all of it.
    [ "$status" = 130 ] && exit 130
    if [ "$status" = 0 ]; then word=ok; else word=FAILED; failed="$failed $name"; fi
    summary="$summary$(printf '  %-18s %s' "$name" "$word")
"
}

scope=${1:-all}
[ $# -gt 0 ] && shift

check formatting ruff format --check .
check lint ruff check .
check types mypy
check "import direction" lint-imports
if [ "$scope" = all ]; then
    # Most tests wait for other processes, so that each file goes to whichever of a few is free, three more than there are
    # cores; the many short ones of tests/unit come last. A word like -n0 or --maxprocesses=8 in the arguments comes
    # later and rules.
    check tests python -m pytest -n auto --maxprocesses 5 --dist loadfile --no-loadscope-reorder "$@"
fi

printf '\n%s' "$summary"
if [ -n "$failed" ]; then
    printf 'Failed:%s\n' "$failed"
    exit 1
fi
