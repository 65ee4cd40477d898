-- Replay: the same kind of query over Parquet files that an earlier pipeline wrote.
--
--     cargo run --release --bin millstream -- run sql-examples/sensors_corrupt.sql
--     cargo run --release --bin millstream -- replay sql-examples/replay.sql
--
-- Any Parquet directory is a stream. Its columns are known to the files, so none are declared here, only which of them carries
-- event time. A live stream of another pipeline is pointed at history in the same way, without a change to its SQL:
--     millstream replay pipeline.sql --set readings.connector=files --set readings.format=parquet --set readings.path=DIR

-- after: sensors_corrupt.sql

CREATE STREAM readings (
    sensor_id BIGINT NOT NULL,
    ts        TIMESTAMP NOT NULL,
    value     DOUBLE,
    WATERMARK FOR ts AS ts
) WITH (connector = 'files', path = 'out/sensors_corrupt/', format = 'parquet', order = 'name', bounded = 'true');

CREATE MATERIALIZED VIEW per_half_minute AS
SELECT window_start, count(*) AS readings, round(avg(value), 3) AS mean
FROM TUMBLE(readings, ts, INTERVAL '30 seconds')
GROUP BY window_start;

SELECT * FROM per_half_minute ORDER BY window_start;

-- expect: SELECT window_start, readings FROM per_half_minute ORDER BY window_start
--   2016-07-01T00:00:00|26
--   2016-07-01T00:00:30|27
--   2016-07-01T00:01:00|27
--   2016-07-01T00:01:30|10
