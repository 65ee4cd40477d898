// What node-postgres gets from `millstream serve`. The argument is the port; the pipeline is that of the test.
"use strict";

const assert = require("node:assert/strict");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

const options = { host: "127.0.0.1", port: Number(process.argv[2]), user: "me", database: "millstream" };

const KINDS = `b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE, d DECIMAL(38, 10), s VARCHAR, y BYTEA, da DATE, t TIME,
  ts TIMESTAMP, tz TIMESTAMPTZ, a BIGINT[], sa VARCHAR[]`;

async function types(client) {
  await client.query(`CREATE TABLE node_kinds (${KINDS})`);
  const places = Array.from({ length: 15 }, (_, n) => `$${n + 1}`).join(", ");
  const moment = new Date(Date.UTC(2024, 0, 1, 1, 2, 3, 45));
  const row = [true, -2, 3, "4611686018427387904", 1.5, 0.1, "1234567890123456789012345678.0123456789", "é'\\", Buffer.from([0, 255]),
    "2024-02-29", "01:02:03.000004", "2024-01-01 01:01:01.000005", moment, [1, null, 3], ["a b", null, "q'", ""]];
  for (const values of [row, Array(15).fill(null)]) {
    const inserted = await client.query(`INSERT INTO node_kinds VALUES (${places})`, values);
    assert.deepEqual([inserted.command, inserted.rowCount], ["INSERT", 1]);
  }
  for (const query of ["SELECT * FROM node_kinds WHERE b", { name: "kinds", text: "SELECT * FROM node_kinds WHERE b = $1", values: [true] }]) {
    const { rows, fields } = await client.query(query);
    assert.deepEqual(fields.map((field) => field.dataTypeID), [16, 21, 23, 20, 700, 701, 1700, 25, 17, 1082, 1083, 1114, 1184, 1016, 1009]);
    const [got] = rows;
    assert.deepEqual(
      { ...got, da: got.da.toDateString(), ts: got.ts.getMilliseconds(), tz: got.tz.toISOString() },
      { b: true, i2: -2, i4: 3, i8: "4611686018427387904", f4: 1.5, f8: 0.1, d: "1234567890123456789012345678.0123456789", s: "é'\\",
        y: Buffer.from([0, 255]), da: "Thu Feb 29 2024", t: "01:02:03.000004", ts: 0, tz: moment.toISOString(), a: ["1", null, "3"],
        sa: ["a b", null, "q'", ""] });
  }
  const empty = await client.query("SELECT * FROM node_kinds WHERE b IS NULL");
  assert.deepEqual(Object.values(empty.rows[0]), Array(15).fill(null));
  // The driver reads binary values by way of UTF-8, so that only small numbers survive it.
  const binary = new Client({ ...options, binary: true });
  await binary.connect();
  assert.deepEqual((await binary.query("SELECT i4, b FROM node_kinds WHERE i8 = $1", ["4611686018427387904"])).rows, [{ i4: 3, b: true }]);
  await binary.end();
}

async function parameters(client) {
  const one = async (text, values) => Object.values((await client.query(text, values)).rows[0]);
  assert.deepEqual(await one("SELECT $1::BIGINT AS a, $2::INT AS b, $3::TEXT AS c", ["7", 8, "nine"]), ["7", 8, "nine"]);
  assert.deepEqual(await one("SELECT $1::BIGINT + 1 AS a, CAST($2 AS DOUBLE) AS b", ["7", "0.5"]), ["8", 0.5]);
  assert.deepEqual(await one("SELECT $1::TIMESTAMP = $2::TIMESTAMP AS same", ["2024-01-01", "2024-01-01 00:00:00"]), [true]);
  await client.query("INSERT INTO accounts VALUES ($1, $2), ($3, $4)", [1, 100, 2, 200]);
  assert.deepEqual(await one("SELECT balance FROM accounts WHERE id = ANY($1) AND balance > $2", [[1, 2], 150]), ["200"]);
  assert.deepEqual((await client.query("SELECT id FROM accounts ORDER BY id LIMIT $1 OFFSET $2", [1, 1])).rows, [{ id: "2" }]);
  assert.equal((await client.query("UPDATE accounts SET balance = balance + $1 WHERE id = $2", [50, 1])).rowCount, 1);
  await assert.rejects(client.query("INSERT INTO accounts VALUES ($1, $2)", [1, 1]), { code: "23505" });
  await assert.rejects(client.query("SELECT nosuch FROM accounts"), { code: "42703", position: "8" });
  await assert.rejects(client.query("SELECT $1::BIGINT", ["no number"]), { code: /^22/ });
  assert.deepEqual((await client.query("SELECT 1 AS a; SELECT 2 AS b")).map((result) => result.rows), [[{ a: "1" }], [{ b: "2" }]]);
}

async function reading(client) {
  await client.query("CREATE TABLE many (n BIGINT)");
  await client.query("INSERT INTO many SELECT value FROM generate_series(1, 1000)");
  const cursor = client.query(new Cursor("SELECT n FROM many ORDER BY n"));
  const first = await cursor.read(10);
  const second = await cursor.read(10);
  assert.deepEqual([first.length, first[0].n, second[0].n], [10, "1", "11"]);
  await cursor.close();
  let sum = 0;
  for await (const row of client.query(new QueryStream("SELECT n FROM many WHERE n > $1", [500], { batchSize: 7 }))) {
    sum += Number(row.n);
  }
  assert.equal(sum, 375250);

  const notices = [];
  client.on("notice", (notice) => notices.push(notice.message));
  await client.query("CREATE MATERIALIZED VIEW by_id AS SELECT id, count(*) AS n FROM sales GROUP BY id");
  assert.match(notices.join(), /keeps a row per group/);

  const tables = await client.query("SELECT table_name FROM information_schema.tables WHERE table_schema = $1 ORDER BY table_name", ["public"]);
  assert.ok(tables.rows.some((row) => row.table_name === "per_colour"));

  await client.query("BEGIN");
  await client.query("INSERT INTO accounts VALUES (3, 300)");
  await client.query("ROLLBACK");
  assert.equal((await client.query("SELECT * FROM accounts WHERE id = 3")).rowCount, 0);
}

// A subscription while rows come in over other connections; then a request to cancel it.
async function changes() {
  const follower = new Client(options);
  await follower.connect();
  const cursor = follower.query(new Cursor("SUBSCRIBE TO per_colour"));
  const next = async (rows) => (await cursor.read(rows)).map((row) => [row.op, row.colour, row.n]);
  assert.deepEqual(await next(1), [["=", null, null]]);
  const pool = new Pool({ ...options, max: 4 });
  await Promise.all(Array.from({ length: 8 }, (_, n) => pool.query("INSERT INTO sales VALUES ($1, 'node', '1.25')", [n])));
  const seen = [];
  while (seen.at(-1)?.[2] !== "8") {
    seen.push(...await next(1));
  }
  assert.deepEqual(seen[0][0], "+I");
  const total = await pool.query("SELECT n, total FROM per_colour WHERE colour = $1", ["node"]);
  assert.deepEqual(total.rows, [{ n: "8", total: "10.00" }]);
  const canceled = assert.rejects(cursor.read(100), { code: "57014" });
  // Asked for until it is heard: the server may not have begun to wait yet.
  const asking = setInterval(() => new Client(options).cancel(follower, cursor), 50);
  await canceled;
  clearInterval(asking);
  assert.deepEqual((await pool.query("SELECT 1::INT AS one")).rows, [{ one: 1 }]);
  await follower.end();
  await pool.end();
}

async function main() {
  const client = new Client(options);
  await client.connect();
  await types(client);
  await parameters(client);
  await changes();
  await reading(client);
  await client.end();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
