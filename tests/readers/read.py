"""Reads Parquet files of wiretag with DuckDB and with ClickHouse's engine, as docs/files.md says; prints the figures of both as JSON."""

import json
import sys

import chdb
import duckdb

FIGURES = {
    "rows": "count(*)",
    "client_bytes": "sum(client_bytes)",
    "client_packets": "sum(client_packets)",
    "flows": "count(DISTINCT flow_id)",
    "named": "count(client_identity)",
    "first": "CAST(min(epoch_of_start) AS BIGINT)",
}


def with_duckdb(glob):
    source = f"read_parquet('{glob}', union_by_name = true, hive_partitioning = true)"
    columns = f"(SELECT *, epoch_us(start::TIMESTAMPTZ) AS epoch_of_start FROM {source})"
    figures = duckdb.sql(f"SELECT {', '.join(FIGURES.values())} FROM {columns}").fetchall()[0]
    app = duckdb.sql(f"SELECT count(*) FROM {source} WHERE client_labels['app'] = 'cart'").fetchall()[0][0]
    return dict(zip(FIGURES, map(int, figures)), labelled=app)


def with_clickhouse(glob):
    source = f"file('{glob}', Parquet)"
    columns = f"(SELECT *, toUnixTimestamp64Micro(start) AS epoch_of_start FROM {source})"
    figures = chdb.query(f"SELECT {', '.join(FIGURES.values())} FROM {columns}", "TSV").data().split()
    app = chdb.query(f"SELECT count() FROM {source} WHERE client_labels['app'] = 'cart'", "TSV").data().strip()
    return dict(zip(FIGURES, map(int, figures)), labelled=int(app))


print(json.dumps({"duckdb": with_duckdb(sys.argv[1]), "clickhouse": with_clickhouse(sys.argv[1])}))
