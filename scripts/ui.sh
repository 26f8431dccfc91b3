#!/usr/bin/env bash
# The page: `scripts/ui.sh build` makes web/ui/dist, `scripts/ui.sh check` fails if it is not what the sources make.
set -euo pipefail
cd "$(dirname "$0")/../web/ui"
npm ci --no-audit --no-fund --silent
case "${1:-build}" in
  build) npm run build ;;
  check)
    npm run check
    npm test
    kept=$(mktemp -d)
    cp -r dist "$kept/"
    npm run build
    if ! diff -r "$kept/dist" dist; then
      echo "error: web/ui/dist is not what the sources make; hint: scripts/ui.sh build, then commit" >&2
      exit 1
    fi
    ;;
  *) echo "usage: scripts/ui.sh [build|check]" >&2; exit 2 ;;
esac
