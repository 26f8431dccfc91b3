#!/usr/bin/env bash
# The flow store next to DuckDB, ClickHouse's engine and SQLite on the same generated rows, in the same run: ingest, bytes a row,
# compaction, memory, and the questions of a day's work, from the disk and from memory.
# Prints Markdown to stdout (docs/performance.md is made of it), progress to stderr.
#
# usage: scripts/bench-store.sh [--rows N] [--days N] [--runs N] [--sqlite-rows N] [--bench BINARY]
#   --rows         rows (10 million)
#   --days         over so many days (7)
#   --runs         warm runs of each question, of which the median counts (5)
#   --sqlite-rows  SQLite is left out beyond so many rows: it takes half an hour for ten million (1 million)
#   --bench        measure this build of store/examples/bench_store instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
export LC_ALL=C.UTF-8

rows=10000000 days=7 runs=5 sqlite=1000000 bench=
while [ $# -gt 0 ]; do
  case $1 in
    --rows) rows=$2; shift ;;
    --days) days=$2; shift ;;
    --runs) runs=$2; shift ;;
    --sqlite-rows) sqlite=$2; shift ;;
    --bench) bench=$2; shift ;;
    *) say "error: unknown option \`$1\`; hint: --rows N, --days N, --runs N, --sqlite-rows N, --bench BINARY"; exit 2 ;;
  esac
  shift
done

need_packages python3 python3-venv
if [ -z "$bench" ]; then
  need_build_tools
  cargo build --release --locked -q --workspace --example bench_store
  bench=${CARGO_TARGET_DIR:-target}/release/examples/bench_store
fi
venv=${XDG_CACHE_HOME:-$HOME/.cache}/wiretag-bench-store
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" -q install -r scripts/bench-store/requirements.txt
fi
# A place on a disk: /tmp may be memory.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-store.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "writing $rows rows"
"$bench" write "$work/store" "$rows" "$days" > "$work/write.json"
"$venv/bin/python" scripts/bench-store/compare.py --bench "$bench" --work "$work" --runs "$runs" --sqlite-rows "$sqlite"
