#!/usr/bin/env bash
# Installs what is missing, builds, and starts the appliance on ./data. Arguments go to `wiretag run` (try --demo).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_build_tools
build_release
exec "${CARGO_TARGET_DIR:-target}/release/wiretag" run "$@"
