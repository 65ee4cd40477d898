"""What ADBC, pyarrow and polars get from `millstream serve` over Arrow Flight SQL. The argument is the port; the pipeline is that of the test."""

import datetime as dt
import decimal
import sys
import threading

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import polars
import pyarrow as pa
import pyarrow.flight as flight

PORT = int(sys.argv[1])
URI = f"grpc://127.0.0.1:{PORT}"
UTC = dt.timezone.utc

KINDS = """b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE, d DECIMAL(38, 10), s VARCHAR, y BYTEA, da DATE, t TIME,
    ts TIMESTAMP, tz TIMESTAMPTZ, a BIGINT[], sa VARCHAR[]"""
TYPES = [
    pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.decimal128(38, 10), pa.string_view(), pa.binary(),
    pa.date32(), pa.time64("ns"), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.list_(pa.int64()), pa.list_(pa.string_view()),
]
ROW = (
    True, -2, 3, 2**62, 1.5, 0.1, decimal.Decimal("1234567890123456789012345678.0123456789"), "é'\\", b"\x00\xff", dt.date(2024, 2, 29),
    dt.time(1, 2, 3, 4), dt.datetime(2024, 1, 1, 1, 1, 1, 5), dt.datetime(2024, 1, 1, 1, tzinfo=UTC), [1, None, 3], ["a b", None, "q'", ""],
)


def check(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def fails(work, *words):
    try:
        work()
    except Exception as error:
        for word in words:
            assert word in str(error), f"{word!r} is not in {error}"
        return error
    raise AssertionError("no error")


def with_adbc():
    with flight_sql.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        check(connection.adbc_get_info()["vendor_name"], "Millstream")
        check(sorted(connection.adbc_get_table_types())[-2:], ["TABLE", "VIEW"])
        objects = connection.adbc_get_objects(depth="all", db_schema_filter="public").read_all().to_pylist()
        tables = objects[0]["catalog_db_schemas"][0]["db_schema_tables"]
        check(objects[0]["catalog_name"], "millstream")
        listed = sorted((table["table_name"], table["table_type"]) for table in tables)
        check(listed, [("accounts", "TABLE"), ("per_colour", "MATERIALIZED VIEW"), ("rich", "VIEW"), ("sales", "STREAM")])
        check(connection.adbc_get_table_schema("accounts").names, ["id", "balance"])
        check([column["column_name"] for table in tables if table["table_name"] == "rich" for column in table["table_columns"]], ["id", "balance"])

        cursor.execute(f"CREATE TABLE kinds ({KINDS})")
        places = ", ".join(f"${n + 1}" for n in range(len(ROW)))
        for row in (ROW, (None,) * len(ROW)):
            cursor.execute(f"INSERT INTO kinds VALUES ({places})", row)
        cursor.execute("SELECT * FROM kinds ORDER BY b NULLS LAST")
        table = cursor.fetch_arrow_table()
        check([field.type for field in table.schema], TYPES)
        check([tuple(row.values()) for row in table.to_pylist()], [ROW, (None,) * len(ROW)])
        cursor.execute("SELECT interval '1 day 2 hours' AS i, 7::TINYINT AS n, now() AS t")
        check(cursor.fetch_arrow_table().schema.types[:2], [pa.month_day_nano_interval(), pa.int8()])
        cursor.execute("SELECT $1 + 1 AS a, $2 AS b, $3 AS c", (5, decimal.Decimal("1.50"), "x'"))
        check(cursor.fetchone(), (6, decimal.Decimal("1.50"), "x'"))
        cursor.execute("SELECT count(*) FROM kinds WHERE ts = $1 AND d > $2", (ROW[11], decimal.Decimal("0.5")))
        check(cursor.fetchone(), (1,))
        for column, value in [("da", ROW[9]), ("t", ROW[10]), ("tz", ROW[12]), ("y", ROW[8]), ("f8", ROW[5]), ("b", True)]:
            cursor.execute(f"SELECT count(*) FROM kinds WHERE {column} = $1", (value,))
            check((column, cursor.fetchone()), (column, (1,)))

        cursor.executemany("INSERT INTO accounts VALUES ($1, $2)", [(1, 10), (2, 20), (3, 300)])
        check(cursor.rowcount, 3)
        fails(lambda: cursor.executemany("INSERT INTO accounts VALUES ($1, $2)", [(4, 4), (1, 1)]), "23505")
        cursor.execute("SELECT id FROM accounts ORDER BY id")
        check(cursor.fetchall(), [(1,), (2,), (3,)])
        cursor.executemany("UPDATE accounts SET balance = balance + $2 WHERE id = $1", [(1, 5), (2, 5)])
        cursor.execute("SELECT sum(balance)::BIGINT FROM accounts")
        check(cursor.fetchone(), (340,))
        error = fails(lambda: cursor.execute("SELECT 1 FROM nosuch"), "relation \"nosuch\" does not exist", "at line 1", "42P01")
        assert isinstance(error, flight_sql.ProgrammingError), type(error)
        for statement in ("BEGIN", "INSERT INTO accounts VALUES (9, 9)", "ROLLBACK"):
            cursor.execute(statement)
        cursor.execute("SELECT count(*) FROM accounts")
        check(cursor.fetchone(), (3,))


def with_sessions():
    with flight_sql.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DECLARE c CURSOR FOR SELECT value::BIGINT AS n FROM generate_series(1, 10) ORDER BY n")
        cursor.execute("FETCH 3 FROM c")
        check(cursor.fetchall(), [(1,), (2,), (3,)])
        cursor.execute("MOVE 4 FROM c")
        cursor.execute("FETCH ALL FROM c")
        check(cursor.fetch_arrow_table().to_pydict(), {"n": [8, 9, 10]})
        cursor.execute("CLOSE c")
        fails(lambda: cursor.execute("FETCH 1 FROM c"), "cursor \"c\" does not exist", "34000")
        cursor.execute("DECLARE changes CURSOR FOR SUBSCRIBE TO accounts WITH (snapshot = false, progress = false)")
        cursor.execute("INSERT INTO accounts VALUES (70, 7)")
        cursor.execute("FETCH 1 FROM changes WITH (timeout = '20s')")
        check(cursor.fetchone()[1:], ("+I", 70, 7))

        cursor.execute("PREPARE balance AS SELECT balance FROM accounts WHERE id = $1")
        cursor.execute("EXECUTE balance(70)")
        check(cursor.fetchall(), [(7,)])
        cursor.execute("EXECUTE balance($1)", (70,))
        check(cursor.fetchall(), [(7,)])
        cursor.execute("DEALLOCATE balance")

        cursor.execute("COPY (SELECT * FROM accounts WHERE id = 70) TO STDOUT")
        check(cursor.fetch_arrow_table().to_pylist(), [{"id": 70, "balance": 7}])
        cursor.execute("COPY (SELECT * FROM accounts WHERE id = 70) TO STDOUT (FORMAT csv, HEADER)")
        check("\n".join(line for (line,) in cursor.fetchall()), "id,balance\n70,7")
        cursor.executemany("COPY accounts (balance, id) FROM STDIN", pa.record_batch({"b": [8, 9], "i": [71, 72]}))
        check(cursor.rowcount, 2)
        fails(lambda: cursor.execute("COPY accounts FROM STDIN"), "adbc_ingest")
        cursor.execute("DELETE FROM accounts WHERE id >= 70")


def with_ingestion():
    rows = pa.table({"id": [1, 2, 3], "colour": pa.array(["red", "red", None]), "price": pa.array([1, 2, 3], pa.decimal128(10, 2))})
    with flight_sql.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        check(cursor.adbc_ingest("sales", rows, mode="append"), 3)
        cursor.execute("SELECT n FROM per_colour WHERE colour = 'red'")
        check(cursor.fetchone(), (2,))
        wrong = rows.rename_columns(["id", "farbe", "price"])
        fails(lambda: cursor.adbc_ingest("sales", wrong, mode="append"), "no column \"farbe\"")
        check(cursor.adbc_ingest("made", rows, mode="create"), 3)
        fails(lambda: cursor.adbc_ingest("made", rows, mode="create"), "exists already")
        check(cursor.adbc_ingest("made", rows.slice(0, 1), mode="create_append"), 1)
        coded = pa.table({"id": [9], "colour": pa.array(["blue"]).dictionary_encode(), "price": pa.array([None], pa.null())})
        check(cursor.adbc_ingest("made", coded, mode="append"), 1)
        cursor.execute("SELECT id, colour FROM made ORDER BY id, colour")
        check(cursor.fetchall(), [(1, "red"), (1, "red"), (2, "red"), (3, None), (9, "blue")])
        big = pa.table({"id": pa.array(range(200_000)), "colour": pa.array(["many"] * 200_000), "price": pa.nulls(200_000, pa.decimal128(10, 2))})
        check(cursor.adbc_ingest("sales", big.to_reader(10_000), mode="append"), 200_000)
        cursor.execute("SELECT n FROM per_colour WHERE colour = 'many'")
        check(cursor.fetchone(), (200_000,))
        cursor.execute("SELECT * FROM made CROSS JOIN generate_series(1, 50000)")
        check(cursor.fetch_arrow_table().num_rows, 250_000)
        check(cursor.adbc_ingest("made", wrong, mode="replace"), 3)
        cursor.execute("SELECT farbe FROM made WHERE id = 1")
        check(cursor.fetchall(), [("red",)])


def with_subscription():
    with flight_sql.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        with flight_sql.connect(URI, autocommit=True) as other, other.cursor() as writer:
            cursor.execute("SUBSCRIBE TO (SELECT id, balance FROM accounts WHERE id > 100)")
            reader = cursor.fetch_record_batch()
            check(reader.schema.names, ["epoch", "op", "id", "balance"])
            check(reader.read_next_batch().to_pylist()[-1]["op"], "=")
            writer.execute("INSERT INTO accounts VALUES (101, 1)")
            seen = []
            while not any(row["op"] == "+I" for row in seen):
                seen.extend(reader.read_next_batch().to_pylist())
            check([(row["id"], row["balance"]) for row in seen if row["op"] == "+I"], [(101, 1)])
            threading.Timer(0.5, cursor.adbc_cancel).start()
            fails(lambda: [None for _ in iter(reader.read_next_batch, None)])
    with flight_sql.connect(URI, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        check(cursor.fetchone(), (1,))


def with_pyarrow():
    client = flight.connect(URI)
    token = flight.FlightCallOptions(headers=[client.authenticate_basic_token("me", "x")])
    info = client.get_flight_info(flight.FlightDescriptor.for_path("rich"), token)
    check(client.do_get(info.endpoints[0].ticket, token).read_all().column_names, ["id", "balance"])
    descriptor = flight.FlightDescriptor.for_path("millstream", "public", "accounts")
    batch = pa.record_batch({"id": [500, 501], "balance": [1, 2]})
    writer, reader = client.do_put(descriptor, batch.schema, token)
    writer.write_batch(batch)
    writer.done_writing()
    assert reader.read() is not None, "it is acknowledged"
    writer.close()

    def refused():
        writer, reader = client.do_put(descriptor, batch.schema, token)
        writer.write_batch(batch)
        writer.done_writing()
        reader.read()
        writer.close()

    fails(refused, "23505")
    assert "CloseSession" in [action.type for action in client.list_actions()]
    fails(lambda: client.do_get(flight.Ticket(b"forged")).read_all())
    fails(lambda: client.get_flight_info(flight.FlightDescriptor.for_path("..", "..", "etc", "passwd")))


def with_polars():
    with flight_sql.connect(URI, autocommit=True) as connection:
        frame = polars.read_database("SELECT id, balance FROM accounts WHERE id >= 500 ORDER BY id", connection)
        check(frame.to_dicts(), [{"id": 500, "balance": 1}, {"id": 501, "balance": 2}])
        polars.DataFrame({"id": [600], "balance": [6]}).write_database("accounts", connection, if_table_exists="append", engine="adbc")
        words = polars.DataFrame({"word": ["a", None, "a long word that is no inline view"]})
        words.write_database("words", connection, if_table_exists="fail", engine="adbc")
        check(polars.read_database("SELECT word FROM words ORDER BY word", connection)["word"].to_list(), ["a", "a long word that is no inline view", None])


def with_users(user, password, token):
    options = {"username": user, "password": password}
    with flight_sql.connect(URI, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 7")
        check(cursor.fetchone(), (7,))
    bearer = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    with flight_sql.connect(URI, db_kwargs=bearer, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 8")
        check(cursor.fetchone(), (8,))
    for wrong in ({}, {**options, "password": "wrong"}, {"adbc.flight.sql.authorization_header": "Bearer wrong"}):
        def connect():
            with flight_sql.connect(URI, db_kwargs=wrong, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        error = fails(connect)
        assert isinstance(error, adbc_driver_manager.Error), type(error)


if len(sys.argv) > 2:
    with_users(*sys.argv[2:5])
else:
    with_adbc()
    with_sessions()
    with_ingestion()
    with_subscription()
    with_pyarrow()
    with_polars()
