"""Reads an archive as a consumer would, with DuckDB: one JSON object per event and line, with the file that it came from.

    read.py DIR
"""

import json
import pathlib
import sys

import duckdb

root = pathlib.Path(sys.argv[1])
files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
unknown = [path.name for path in files if not path.name.endswith((".ndjson", ".ndjson.gz", ".ndjson.zst", ".parquet"))]
assert not unknown, f"not of an archive: {unknown}"
database = duckdb.connect()
database.execute("SET TimeZone = 'UTC'")
for path in files:
    if path.suffix == ".parquet":
        events = "SELECT to_json(event) FROM read_parquet($1, hive_partitioning = false) event"
    else:
        events = "SELECT json FROM read_ndjson_objects($1, hive_partitioning = false, maximum_object_size = 67108864)"
    relation = database.execute(events, [str(path)])
    while rows := relation.fetchmany(1000):
        for (event,) in rows:
            print(json.dumps({"file": str(path.relative_to(root)), "event": json.loads(event)}))
