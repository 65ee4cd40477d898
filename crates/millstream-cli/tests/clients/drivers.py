"""What PostgreSQL drivers for Python get from `millstream serve`. The argument is the port; the pipeline is that of the test."""

import asyncio
import datetime as dt
import decimal
import sys
import threading

import asyncpg
import pandas
import psycopg
import sqlalchemy

PORT = int(sys.argv[1])
OPTIONS = f"host=127.0.0.1 port={PORT} user=me dbname=millstream"

KINDS = """b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE, d DECIMAL(38, 10), s VARCHAR, y BYTEA, da DATE, t TIME,
    ts TIMESTAMP, tz TIMESTAMPTZ, a BIGINT[], sa VARCHAR[]"""
UTC = dt.timezone.utc
ROW = (
    True, -2, 3, 2**62, 1.5, 0.1, decimal.Decimal("1234567890123456789012345678.0123456789"), "é'\\", b"\x00\xff", dt.date(2024, 2, 29),
    dt.time(1, 2, 3, 4), dt.datetime(2024, 1, 1, 1, 1, 1, 5), dt.datetime(2024, 1, 1, 1, tzinfo=UTC), [1, None, 3], ["a b", None, "q'", ""],
)


def check(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def with_psycopg():
    with psycopg.connect(OPTIONS, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE kinds ({KINDS})")
        places = ", ".join(["%s"] * len(ROW))
        for row in (ROW, (None,) * len(ROW)):
            check(connection.execute(f"INSERT INTO kinds VALUES ({places})", row).rowcount, 1)
        for binary in (False, True):
            rows = connection.cursor(binary=binary).execute("SELECT * FROM kinds").fetchall()
            check(sorted(rows, key=lambda row: row[0] is None), [ROW, (None,) * len(ROW)])
            check(connection.cursor(binary=binary).execute("SELECT interval '1 day 2 hours'").fetchone()[0], dt.timedelta(1, 7200))
        check(connection.execute("SELECT %s + 1, %s", (5, decimal.Decimal("1.50"))).fetchone(), (6, decimal.Decimal("1.50")))
        check(connection.execute("SELECT count(*) FROM kinds WHERE ts = %s AND d > %s", (ROW[11], decimal.Decimal("0.5"))).fetchone(), (1,))

        try:
            connection.execute("SELECT 1 FROM nosuch")
            raise AssertionError("no error")
        except psycopg.errors.UndefinedTable as error:
            check((error.diag.sqlstate, error.diag.statement_position), ("42P01", "15"))
        connection.execute("INSERT INTO accounts VALUES (1, 10), (2, 20), (3, 30)")
        try:
            connection.execute("INSERT INTO accounts VALUES (1, 1)")
            raise AssertionError("no error")
        except psycopg.errors.UniqueViolation:
            pass
        with connection.transaction():
            connection.execute("INSERT INTO accounts VALUES (4, 40)")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO accounts VALUES (5, 50)")
                    raise ValueError
            except ValueError:
                pass
            cursor = connection.cursor("named")
            cursor.execute("SELECT id FROM accounts ORDER BY id")
            check((cursor.fetchmany(2), cursor.fetchall()), ([(1,), (2,)], [(3,)]))
        check(connection.execute("SELECT count(*) FROM accounts").fetchone(), (4,))

        with connection.cursor() as cursor:
            with cursor.copy("COPY sales (id, colour) FROM STDIN") as copy:
                for number in range(3):
                    copy.write_row((number, "copied\n\t\\"))
            with cursor.copy("COPY (SELECT id, colour FROM sales ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
                copy.set_types(["int8", "text"])
                check(list(copy.rows()), [(number, "copied\n\t\\") for number in range(3)])
            with cursor.copy("COPY accounts FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int8", "int8"])
                copy.write_row((9, 90))

        changes = connection.cursor().stream("SUBSCRIBE TO per_colour")
        check(next(changes)[1:], ("+I", "copied\n\t\\", 3, None))
        changes.close()
        threading.Timer(0.5, connection.cancel).start()
        try:
            connection.execute("SUBSCRIBE TO per_colour")
            raise AssertionError("not canceled")
        except psycopg.errors.QueryCanceled:
            pass
        check(connection.execute("SELECT 1").fetchone(), (1,))


async def with_asyncpg():
    connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="me", database="millstream")
    check(await connection.fetchval("SELECT balance FROM accounts WHERE id = $1", 2), 20)
    check(tuple(await connection.fetchrow("SELECT * FROM kinds WHERE b")), ROW)
    typed = await connection.fetchrow("SELECT $1::BIGINT, $2::DECIMAL(10, 2), $3::BIGINT[], $4::TIMESTAMPTZ", 7, decimal.Decimal("1.5"), [1, 2], ROW[12])
    check(tuple(typed), (7, decimal.Decimal("1.50"), [1, 2], ROW[12]))
    check([row["id"] for row in await connection.fetch("SELECT id FROM accounts WHERE id = ANY($1) ORDER BY id LIMIT $2", [2, 3, 4], 2)], [2, 3])
    check(tuple(await connection.fetchrow("SELECT 1, 1, $1::INT, $2::INT", 3, 3)), (1, 1, 3, 3))
    await connection.execute("INSERT INTO sales VALUES ($1, $2, $3)", 5, "asyncpg", decimal.Decimal("1.25"))
    await connection.executemany("INSERT INTO sales (id, colour) VALUES ($1, $2)", [(number, "many") for number in range(3)])
    await connection.copy_records_to_table("sales", records=[(9, "binary")], columns=["id", "colour"])
    async with connection.transaction():
        check([row["id"] async for row in connection.cursor("SELECT id FROM accounts ORDER BY id", prefetch=2)], [1, 2, 3, 4, 9])
    rows = await connection.fetch("SELECT colour, n FROM per_colour WHERE colour <> $1 ORDER BY colour", "copied\n\t\\")
    check([tuple(row) for row in rows], [("asyncpg", 1), ("binary", 1), ("many", 3)])
    await connection.close()


def with_sqlalchemy():
    engine = sqlalchemy.create_engine(f"postgresql+{DRIVER}://me@127.0.0.1:{PORT}/millstream")
    inspector = sqlalchemy.inspect(engine)
    check(sorted(inspector.get_table_names()), ["accounts", "kinds", "sales"])
    check(sorted(inspector.get_view_names()), ["per_colour", "rich"])
    columns = [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns("accounts")]
    check(columns, [("id", "BIGINT", False), ("balance", "BIGINT", False)])
    key = inspector.get_pk_constraint("accounts")
    check((key["constrained_columns"], key["name"]), (["id"], "accounts_pkey"))
    check((inspector.get_pk_constraint("sales")["constrained_columns"], inspector.get_indexes("accounts")), ([], []))
    check((inspector.get_foreign_keys("accounts"), inspector.get_unique_constraints("accounts")), ([], []))
    price = {column["name"]: str(column["type"]) for column in inspector.get_columns("sales")}["price"]
    check((price, inspector.get_view_definition("rich")), ("NUMERIC(10, 2)", "SELECT id, balance FROM accounts WHERE balance > 100"))
    table = sqlalchemy.Table("accounts", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        check(connection.execute(sqlalchemy.select(table.c.id).where(table.c.balance > 20).order_by(table.c.id)).scalars().all(), [3, 4, 9])
        frame = pandas.read_sql(sqlalchemy.text("SELECT id, balance FROM accounts ORDER BY id"), connection)
        check((frame.shape, int(frame.balance.sum())), ((5, 2), 190))
    pandas.DataFrame({"id": [50], "balance": [500]}).to_sql("accounts", engine, if_exists="append", index=False)
    with engine.connect() as connection:
        check(connection.execute(sqlalchemy.text("SELECT balance FROM accounts WHERE id = 50")).scalar(), 500)
        connection.execute(sqlalchemy.text("DELETE FROM accounts WHERE id = 50"))
        connection.commit()


with_psycopg()
asyncio.run(with_asyncpg())
for DRIVER in ("psycopg2", "psycopg"):
    with_sqlalchemy()
