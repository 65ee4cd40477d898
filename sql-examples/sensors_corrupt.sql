-- Sensor readings with corrupt rows, into Parquet.
--
--     cargo run --release --bin millstream -- run sql-examples/sensors_corrupt.sql
--
-- Every tenth line of data/sensors/ is damaged: a field is missing, or is no number. Such rows do not stop the pipeline and do not
-- vanish either: they go to the dead letters with file, line and reason, and rows in = rows used + bad + late.
-- out/sensors_corrupt/ then holds the good ones; replay.sql reads them again.

CREATE STREAM readings (
    sensor_id BIGINT NOT NULL,
    ts        TIMESTAMP NOT NULL,
    value     DOUBLE,
    file      VARCHAR METADATA FROM 'name',
    WATERMARK FOR ts AS ts - INTERVAL '10 seconds'
) WITH (
    connector = 'files', path = 'sql-examples/data/sensors/', format = 'csv', timestamp_format = 'epoch_ms',
    order = 'name', max_files_per_epoch = '1', bounded = 'true', on_error = 'dead_letter'
);

CREATE SINK good_readings AS
SELECT sensor_id, ts, value FROM readings
WITH (connector = 'parquet', path = 'out/sensors_corrupt/');

CREATE MATERIALIZED VIEW per_file AS SELECT file, count(*) AS readings FROM readings GROUP BY file;

SELECT file, readings FROM per_file ORDER BY file;

-- expect: SELECT file, readings FROM per_file ORDER BY file
--   readings-1.csv|23
--   readings-2.csv|22
--   readings-3.csv|23
--   readings-4.csv|22
-- expect: SELECT count(*), min(ts), max(ts) FROM good_readings
--   90|2016-07-01T00:00:01|2016-07-01T00:01:40
-- expect: SELECT rows_in, rows_used, rows_bad, rows_late FROM millstream.sources
--   100|90|10|0
