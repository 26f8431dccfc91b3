"""Reads Parquet files of wiretag with DuckDB, ClickHouse's engine and Polars, as docs/files.md says; prints the figures of each as JSON."""

import json
import sys

import chdb
import duckdb
import polars

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


def with_polars(glob):
    hive = "hour=" in glob
    flows = polars.scan_parquet(glob, hive_partitioning=hive, missing_columns="insert")
    figures = {
        "rows": polars.len(),
        "client_bytes": polars.col("client_bytes").sum(),
        "client_packets": polars.col("client_packets").sum(),
        "flows": polars.col("flow_id").n_unique(),
        "named": polars.col("client_identity").count(),
        "first": polars.col("start").min().dt.epoch("us"),
        "labelled": (polars.col("client_labels").map.get("app") == "cart").sum(),
    }
    return flows.select(**figures).collect().to_dicts()[0]


GLOB = sys.argv[1]
print(json.dumps({"duckdb": with_duckdb(GLOB), "clickhouse": with_clickhouse(GLOB), "polars": with_polars(GLOB)}))
