"""What ADBC and polars get from `millstream serve`: rows as Arrow, by binary COPY in both directions. The argument is the port."""

import datetime as dt
import sys

import adbc_driver_postgresql.dbapi as adbc
import polars
import pyarrow

PORT = int(sys.argv[1])
URI = f"postgresql://me@127.0.0.1:{PORT}/millstream"

KINDS = """b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE, d DECIMAL(38, 10), s VARCHAR, y BYTEA, da DATE, t TIME,
    ts TIMESTAMP, tz TIMESTAMPTZ, a BIGINT[], sa VARCHAR[]"""
VALUES = """true, -2, 3, 4611686018427387904, 1.5, 0.1, 1234567890123456789012345678.0123456789, 'é''\\', X'00ff', '2024-02-29',
    '01:02:03.000004', '2024-01-01 01:01:01.000005', '2024-01-01 01:00:00+00', ARRAY[1, NULL, 3], ARRAY['a b', NULL, 'q', '']"""
ROW = {
    "b": True, "i2": -2, "i4": 3, "i8": 2**62, "f4": 1.5, "f8": 0.1, "d": "1234567890123456789012345678.0123456789", "s": "é'\\",
    "y": b"\x00\xff", "da": dt.date(2024, 2, 29), "t": dt.time(1, 2, 3, 4), "ts": dt.datetime(2024, 1, 1, 1, 1, 1, 5),
    "tz": dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone.utc), "a": [1, None, 3], "sa": ["a b", None, "q", ""],
}


def check(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def with_adbc():
    with adbc.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE arrow_kinds ({KINDS})")
        nulls = ", ".join(["NULL"] * len(ROW))
        cursor.execute(f"INSERT INTO arrow_kinds VALUES ({VALUES}), ({nulls})")
        cursor.execute("SELECT * FROM arrow_kinds ORDER BY b NULLS LAST")
        table = cursor.fetch_arrow_table()
        check(table.to_pylist(), [ROW, dict.fromkeys(ROW)])
        kinds = [str(field.type) for field in table.schema if field.name != "d"]
        check(kinds, ["bool", "int16", "int32", "int64", "float", "double", "string", "binary", "date32[day]", "time64[us]",
                      "timestamp[us]", "timestamp[us, tz=UTC]", "list<item: int64>", "list<item: string>"])
        cursor.execute("SELECT interval '1 day 2 hours' AS i")
        check(cursor.fetch_arrow_table().to_pylist()[0]["i"], pyarrow.MonthDayNano([0, 1, 7_200 * 10**9]))
        cursor.execute("SELECT $1 + 1 AS a, $2 AS b, $3::BIGINT AS c", (5, "x", 7))
        check(cursor.fetchall(), [(6, "x", 7)])
        cursor.executemany("INSERT INTO accounts VALUES ($1, $2)", [(1, 10), (2, 20)])

        # Ingestion is a binary COPY.
        rows = pyarrow.table({"id": pyarrow.array([10, 11], pyarrow.int64()), "balance": pyarrow.array([100, 110], pyarrow.int64())})
        check(cursor.adbc_ingest("accounts", rows, mode="append"), 2)
        for mode, count in (("create", 2), ("replace", 2), ("create_append", 4)):
            cursor.adbc_ingest("made", rows, mode=mode)
            cursor.execute("SELECT count(*) FROM made")
            check(cursor.fetchall(), [(count,)])
        for mode, target in (("append", "arrow_kinds"), ("create", "arrow_copies")):
            cursor.adbc_ingest(target, table.drop(["d"]), mode=mode)
            cursor.execute(f"SELECT * FROM {target} WHERE b ORDER BY i8")
            for row in cursor.fetch_arrow_table().drop("d" if target == "arrow_kinds" else []).to_pylist():
                check(row, {name: value for name, value in ROW.items() if name != "d"})

        (catalog,) = [one for one in connection.adbc_get_objects(db_schema_filter="public").read_all().to_pylist()
                      if one["catalog_name"] == "millstream"]
        (schema,) = catalog["catalog_db_schemas"]
        tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
        check((tables["accounts"]["table_type"], tables["per_colour"]["table_type"]), ("table", "view"))
        check([column["column_name"] for column in tables["accounts"]["table_columns"]], ["id", "balance"])
        (constraint,) = tables["accounts"]["table_constraints"]
        check((constraint["constraint_type"], constraint["constraint_column_names"]), ("PRIMARY KEY", ["id"]))
        check(connection.adbc_get_table_schema("accounts").field("balance").type, pyarrow.int64())


def with_transactions():
    with adbc.connect(URI) as connection, connection.cursor() as cursor:
        for price in ("1.50", "2.25"):
            with adbc.connect(URI, autocommit=True) as other, other.cursor() as insert:
                insert.execute("INSERT INTO sales VALUES (1, 'arrow', $1)", (price,))
            cursor.execute("SELECT n, total FROM per_colour WHERE colour = 'arrow'")
            # Its transaction reads what there was when it began.
            check(cursor.fetchall(), [(1, "1.50")])
        connection.rollback()
        cursor.execute("SELECT n, total FROM per_colour WHERE colour = 'arrow'")
        check(cursor.fetchall(), [(2, "3.75")])
        connection.rollback()


def with_polars():
    accounts = polars.read_database_uri("SELECT * FROM accounts ORDER BY id", URI, engine="adbc")
    check(accounts.to_dicts(), [{"id": 1, "balance": 10}, {"id": 2, "balance": 20}, {"id": 10, "balance": 100}, {"id": 11, "balance": 110}])
    with adbc.connect(URI, autocommit=True) as connection:
        check(polars.read_database("SELECT sum(balance) AS total FROM accounts", connection).item(), 240)
    polars.DataFrame({"id": [90], "balance": [900]}).write_database("accounts", URI, engine="adbc", if_table_exists="append")
    kinds = polars.read_database_uri("SELECT * FROM arrow_kinds WHERE d IS NOT NULL", URI, engine="adbc")
    check(kinds["ts"].to_list(), [ROW["ts"]])
    check(kinds["a"].to_list(), [ROW["a"]])
    check(polars.read_database_uri("SELECT balance FROM accounts WHERE id = 90", URI, engine="adbc").item(), 900)


with_adbc()
with_transactions()
with_polars()
