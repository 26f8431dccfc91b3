#!/usr/bin/env bash
# make.sh VERSION WIRETAG NAMES.yaml CAPTURE…: writes files of the schema of a release beside this script, as that release keeps them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1 wiretag=$2 names=$3
shift 3
for capture in "$@"; do
  data=$(mktemp -d)
  "$wiretag" import --quiet "$capture" --static "$names" --data "$data"
  name=$(basename "${capture%.*}")
  for table in flows transactions; do
    mapfile -t files < <(find "$data/$table" -name '*.parquet' 2>/dev/null)
    # A capture of one hour has one file; one without exchanges has none of transactions.
    [ ${#files[@]} -eq 1 ] || continue
    option=(); [ "$table" = flows ] || option=(--transactions)
    cp "${files[0]}" "$here/$version-$table-$name.parquet"
    chmod 644 "$here/$version-$table-$name.parquet"
    "$wiretag" flows "${option[@]}" --all-observations --limit 1000 --format json --data "$data" >"$here/$version-$table-$name.jsonl"
  done
  rm -rf "$data"
done
