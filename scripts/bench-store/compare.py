"""The questions of scripts/bench-store.sh, put to every engine on the same rows. Prints Markdown."""

import argparse
import contextlib
import glob
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import time

HOUR = 3_600_000_000_000


# What the page's histogram shows of each bucket.
SUMS = ["client_bytes", "server_bytes", "client_packets", "server_packets"]
ENDS = [
    f"sum(case when client_tagged_by = '{how}' then 1 else 0 end) + sum(case when server_tagged_by = '{how}' then 1 else 0 end)"
    for how in ["ambiguous", "none"]
]
BUCKET = ", ".join(["count(*) as flows"] + [f"sum({name})" for name in SUMS] + ENDS)


def say(text):
    print(text, file=sys.stderr, flush=True)


def files(path):
    return [path] if os.path.isfile(path) else glob.glob(path + "/**/*", recursive=True)


def forget(path):
    """Lets the kernel drop what it has of the files below: the next read comes from the disk."""
    for name in files(path):
        # Engines merge meanwhile, and files go.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), open(name, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size(path):
    total = 0
    for name in files(path):
        with contextlib.suppress(FileNotFoundError):
            total += 0 if os.path.isdir(name) else os.path.getsize(name)
    return total


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def questions(needles, time_of):
    """Name, conditions, what is asked of the rows."""
    begin, span = needles["begin"], needles["span"]
    middle = begin + span // 3
    day = f'start < {time_of(middle + 12 * HOUR)} and "end" >= {time_of(middle - 12 * HOUR)}'
    hour = f"start >= {time_of(middle)} and start < {time_of(middle + HOUR)}"
    newest = "order by start desc, flow_id, slice limit 100"
    ends = "((client_ip = '{ip}' or server_ip = '{ip}') and (client_port = {port} or server_port = {port}))"
    rows = "select * from flows where "
    rare = ends.format(ip=needles["rare_ip"], port=needles["rare_port"])
    often = ends.format(ip=needles["often_ip"], port=needles["often_port"])
    pod = needles["pod"]
    return {
        "newest": f"select * from flows {newest}",
        "newest_rare": f"{rows}{rare} {newest}",
        "newest_often": f"{rows}{often} {newest}",
        "pod_day": f"{rows}(client_pod = '{pod}' or server_pod = '{pod}') and {day} order by start desc",
        "flow": f"{rows}flow_id = '{needles['flow_id']}' {newest}",
        "needle": f"{rows}tls_sni = '{needles['sni']}' {newest}",
        "histogram": ("BUCKETS", f"server_port = 443 and client_retransmits > 0 and start >= {time_of(begin - HOUR)}"),
        "top": "select client_workload, sum(client_bytes) as bytes from flows "
        f'where {hour} and "primary" group by client_workload order by bytes desc limit 20',
        "quantiles": ("QUANTILES", f'"primary" and start >= {time_of(middle - 12 * HOUR)} and start < {time_of(middle + 12 * HOUR)}'),
    }


def measured(ask, runs):
    """First time, median of the others, rows."""
    times = []
    for _ in range(runs + 1):
        clock = time.perf_counter()
        count = ask()
        times.append((time.perf_counter() - clock) * 1e3)
    return {"cold_ms": times[0], "warm_ms": statistics.median(times[1:]), "rows": count}


def wiretag(bench, store, names, runs):
    results = {}
    for name in names:
        forget(store)
        run = subprocess.run([bench, "query", store, name, str(runs)], capture_output=True, text=True)
        if run.returncode == 0:
            results[name] = json.loads(run.stdout)
        else:
            say(f"wiretag does not answer {name}: {run.stderr.strip()[:200]}")
    return results


def counted(name, table):
    if name == "histogram":
        return sum(table.column("flows").to_pylist())
    return table.num_rows


def duckdb_engine(source, database, needles, runs, native):
    import duckdb

    def time_of(nanos):
        return f"make_timestamp_ns({nanos})"

    setup = {"ingest_cpu_s": None}
    if native:
        before = cpu()
        connection = duckdb.connect(database)
        connection.execute("set timezone = 'UTC'")
        columns = 'select * replace (start::timestamp_ns as start, "end"::timestamp_ns as "end")'
        connection.execute(f"create table flows as {columns} from read_parquet('{source}', hive_partitioning = false)")
        connection.close()
        setup = {"ingest_cpu_s": cpu() - before, "bytes": size(database)}
    results = {}
    for name, text in questions(needles, time_of).items():
        forget(database if native else os.path.dirname(source.split("**")[0]))
        connection = duckdb.connect(database, read_only=True) if native else duckdb.connect()
        connection.execute("set timezone = 'UTC'")
        if not native:
            columns = 'select * replace (start::timestamp_ns as start, "end"::timestamp_ns as "end")'
            connection.execute(
                f"create view flows as {columns} from read_parquet('{source}', hive_partitioning = false)"
            )
        if name == "histogram":
            _, where = text
            text = f"select epoch_ns(start) // {HOUR} as bucket, {BUCKET} from flows where {where} group by 1"
        if name == "quantiles":
            _, where = text
            text = ("select server_workload, epoch_ns(start) // 120000000000 as time, "
                    f"quantile_cont(server_rtt_us, [0.5, 0.99]) from flows where {where} group by 1, 2")
        results[name] = measured(lambda: counted(name, connection.sql(text).to_arrow_table()), runs)
        connection.close()
    return setup, results


def chdb_engine(source, directory, needles, runs):
    import chdb.session

    def time_of(nanos):
        return f"fromUnixTimestamp64Nano(toInt64({nanos}), 'UTC')"

    before = cpu()
    session = chdb.session.Session(directory)
    session.query(
        "create table flows engine = MergeTree order by start settings allow_nullable_key = 1 as "
        f"select * from file('{source}', Parquet)"
    )
    session.query("optimize table flows final")
    # Parts that were merged stay on the disk for a while.
    parts = "select sum(bytes_on_disk) from system.parts where active and table = 'flows'"
    setup = {"ingest_cpu_s": cpu() - before, "bytes": int(session.query(parts, "TSV").bytes())}
    results = {}
    for name, text in questions(needles, time_of).items():
        if name == "histogram":
            _, where = text
            text = f"select toStartOfHour(start) as bucket, {BUCKET} from flows where {where} group by bucket"
        if name == "quantiles":
            _, where = text
            text = ("select server_workload, toStartOfInterval(start, interval 2 minute) as time, "
                    f"quantiles(0.5, 0.99)(server_rtt_us) from flows where {where} group by 1, 2")
        forget(directory)
        results[name] = measured(lambda: counted(name, arrow(session.query(text, "Arrow"))), runs)
    session.close()
    return setup, results


def arrow(answer):
    import pyarrow

    data = answer.bytes()
    return pyarrow.ipc.open_file(data).read_all() if data else pyarrow.table({})


def sqlite_engine(source, database, needles, runs):
    import pyarrow
    import pyarrow.parquet

    connection = sqlite3.connect(database)
    connection.executescript("pragma journal_mode = off; pragma synchronous = off;")
    before, made = cpu(), False
    for name in sorted(glob.glob(source, recursive=True)):
        table = pyarrow.parquet.read_table(name, partitioning=None)
        names = table.column_names
        if not made:
            connection.execute("create table flows (" + ", ".join(f'"{name}"' for name in names) + ")")
            made = True
        columns = []
        for column in table.columns:
            if pyarrow.types.is_timestamp(column.type):
                column = column.cast(pyarrow.int64())
            values = column.to_pylist()
            columns.append([json.dumps(value) for value in values] if pyarrow.types.is_map(column.type) else values)
        connection.executemany(f"insert into flows values ({', '.join('?' * len(names))})", zip(*columns))
    for columns in ["start", "client_ip, start", "server_ip, start", "client_pod, start", "server_pod, start",
                    "flow_id", "tls_sni, start", "server_port, start"]:
        connection.execute(f"create index \"by {columns}\" on flows ({columns})")
    connection.commit()
    connection.execute("analyze")
    setup = {"ingest_cpu_s": cpu() - before, "bytes": size(database)}
    connection.close()
    results = {}
    for name, text in questions(needles, str).items():
        if name == "quantiles":
            continue  # It has no quantiles.
        if name == "histogram":
            _, where = text
            text = f"select start / {HOUR}, {BUCKET} from flows where {where} group by 1"
        forget(database)
        connection = sqlite3.connect(database)

        def ask():
            rows = connection.execute(text).fetchall()
            return sum(row[1] for row in rows) if name == "histogram" else len(rows)

        results[name] = measured(ask, runs)
        connection.close()
    return setup, results


def main():
    parser = argparse.ArgumentParser()
    for name in ["--bench", "--work"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sqlite-rows", type=int, default=1_000_000)
    options = parser.parse_args()
    store = os.path.join(options.work, "store")
    written = json.load(open(os.path.join(options.work, "write.json")))
    needles = json.load(open(os.path.join(store, "needles.json")))
    source = store + "/flows/**/*.parquet"
    names = list(questions(needles, str))
    engines = {}
    say("wiretag answers")
    engines["wiretag"] = ({}, wiretag(options.bench, store, names, options.runs))
    attempts = {
        "DuckDB": lambda: duckdb_engine(source, os.path.join(options.work, "duck.db"), needles, options.runs, True),
        "DuckDB on our Parquet": lambda: duckdb_engine(source, "", needles, options.runs, False),
        "chDB (MergeTree)": lambda: chdb_engine(source, os.path.join(options.work, "chdb"), needles, options.runs),
    }
    if written["rows"] <= options.sqlite_rows:
        attempts["SQLite, indexed"] = lambda: sqlite_engine(
            source, os.path.join(options.work, "sqlite.db"), needles, options.runs
        )
    for name, attempt in attempts.items():
        say(f"{name} reads the rows and answers")
        try:
            engines[name] = attempt()
        except Exception as error:  # A peer that fails is left out, and said.
            say(f"left out: {name}: {str(error)[:400]}")
    report(written, engines, names)


def report(written, engines, names):
    rows = written["rows"]
    print(f"{rows:,} rows; wiretag: {written['rows_per_core_s']:,} rows/s a core into durable files, compaction "
          f"{written['compaction_of_ingest']:.0%} of that again, {written['bytes_per_row']:.1f} bytes a row in "
          f"{written['files']} files, peak {written['peak_rss_mb']} MB\n")
    for name, (setup, _) in engines.items():
        if setup.get("bytes"):
            print(f"* {name}: {setup['ingest_cpu_s'] * 1e6 / rows:.2f} µs of CPU a row from Parquet, {setup['bytes'] / rows:.1f} bytes a row")
    print("\n| ms, warm median (cold) | " + " | ".join(engines) + " | rows |")
    print("| --- |" + " ---: |" * (len(engines) + 1))
    for question in names:
        cells, counts = [], []
        for _, results in engines.values():
            result = results.get(question)
            cells.append(f"{result['warm_ms']:.1f} ({result['cold_ms']:.0f})" if result else "")
            counts += [result["rows"]] if result else []
        agreed = f"{counts[0]:,}" if len(set(counts)) == 1 else f"differ: {counts}"
        print(f"| {question} | " + " | ".join(cells) + f" | {agreed} |")


main()
