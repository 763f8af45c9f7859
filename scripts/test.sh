#!/usr/bin/env bash
# Runs pytest with the given arguments. As root in one go; as an ordinary user, the tests that need root in a second run through
# sudo, where that works without asking; else they are skipped, each with its reason.
set -uo pipefail
cd "$(dirname "$0")/.."

pytest=(.venv/bin/python -m pytest -q -p no:cacheprovider)
root_tests=${ROOT_TESTS:-tests/interop}

if [ $# -gt 0 ] || [ -z "${SUDO:-}" ] || ! sudo -n true 2>/dev/null; then
    exec "${pytest[@]}" "$@"
fi

"${pytest[@]}" --ignore="$root_tests"
status=$?
# Root must not leave files of its own in the tree.
sudo -n env PYTHONDONTWRITEBYTECODE=1 "PATH=$PATH" "${pytest[@]}" "$root_tests" || status=$?
exit $status
