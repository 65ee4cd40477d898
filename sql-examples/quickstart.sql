-- Quickstart: SQL over a live stream, into Parquet files.
--
--     cargo run --release --bin millstream -- run sql-examples/quickstart.sql
--
-- A generator plays ten sensors for about five seconds. Every second the console shows the counts and means of the second
-- that has just become complete; all readings go to out/quickstart/readings/ and the means to out/quickstart/means/, both as
-- Parquet. Then the stream ends and so does the program.
--
-- Kill it in the middle and start it again: it continues where it was, and every row is in the files once. To start over,
-- delete out/quickstart/ and sql-examples/.millstream/quickstart/.

CREATE STREAM readings (
    n      BIGINT METADATA FROM 'n',
    sensor BIGINT NOT NULL,
    ts     TIMESTAMP NOT NULL,
    value  DOUBLE,
    WATERMARK FOR ts AS ts
) WITH (
    connector = 'generator',
    rows_per_second = '2000',
    row_limit = '10000',
    sensor.max = '9',
    value.kind = 'normal', value.mean = '20', value.stddev = '5'
);

-- Every reading, as it comes.
CREATE SINK all_readings AS
SELECT n, sensor, ts, value FROM readings
WITH (connector = 'parquet', path = 'out/quickstart/readings/', roll_interval = '1s');

-- One row per sensor and second, once it can no longer change.
CREATE MATERIALIZED VIEW means AS
SELECT window_start, sensor, count(*) AS readings, round(avg(value), 1) AS mean
FROM TUMBLE(readings, ts, INTERVAL '1 second')
GROUP BY window_start, sensor
EMIT ON WINDOW CLOSE;

CREATE SINK means_files FROM means WITH (connector = 'parquet', path = 'out/quickstart/means/', roll_interval = '1s');
CREATE SINK means_screen FROM means WITH (connector = 'console');

-- With all streams ended, a SELECT shows what became of it.
SELECT sensor, sum(readings) AS readings FROM means GROUP BY sensor ORDER BY sensor;

-- expect: SELECT count(*), count(DISTINCT n), min(n), max(n) FROM all_readings
--   10000|10000|0|9999
-- expect: SELECT count(DISTINCT sensor), sum(readings) FROM means
--   10|10000
