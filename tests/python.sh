#!/usr/bin/env bash
# usage: tests/python.sh DIRECTORY
# Makes a Python environment for the tests, once: the versions and hashes of DIRECTORY/requirements.txt. Prints its interpreter.
set -euo pipefail
here=$(cd "$1" && pwd)
place=${XDG_CACHE_HOME:-$HOME/.cache}/wiretag-$(basename "$here")-$(sha256sum "$here/requirements.txt" | cut -c1-16)
(
  flock 9
  if [ ! -e "$place/whole" ]; then
    rm -rf "$place"
    python3 -m venv "$place" >&2
    "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
      -r "$here/requirements.txt" >&2
    touch "$place/whole"
  fi
) 9>"$place.lock"
echo "$place/bin/python"
