-- Page views per minute, with rows that come too late.
--
--     cargo run --release --bin millstream -- run sql-examples/windowed_late.sql
--
-- `WATERMARK FOR ts AS ts - INTERVAL '20 seconds'` says how long to wait for stragglers. A minute is emitted once, when the
-- watermark has passed its end. A row whose time lies below the watermark at the start of its micro-batch is late: it is counted
-- and left out. The cut into micro-batches decides what is late, so this example takes one file per micro-batch.

CREATE STREAM views (
    "user" VARCHAR,
    page   VARCHAR,
    ts     TIMESTAMP NOT NULL,
    WATERMARK FOR ts AS ts - INTERVAL '20 seconds'
) WITH (
    connector = 'files', path = 'sql-examples/data/events/', format = 'json',
    order = 'name', max_files_per_epoch = '1', bounded = 'true'
);

-- What can still change: corrected as rows come.
CREATE MATERIALIZED VIEW so_far AS
SELECT window_start, count(*) AS views, count(DISTINCT "user") AS users
FROM TUMBLE(views, ts, INTERVAL '1 minute')
GROUP BY window_start;

-- What cannot change any more: each minute once.
CREATE SINK per_minute AS
SELECT window_start, window_end, count(*) AS views
FROM TUMBLE(views, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE
WITH (connector = 'parquet', path = 'out/windowed_late/');

SELECT * FROM so_far ORDER BY window_start;

-- expect: SELECT window_start, views FROM per_minute ORDER BY window_start
--   2024-05-01T12:00:00|4
--   2024-05-01T12:01:00|3
--   2024-05-01T12:02:00|2
--   2024-05-01T12:03:00|1
-- expect: SELECT * FROM so_far ORDER BY window_start
--   2024-05-01T12:00:00|4|2
--   2024-05-01T12:01:00|3|3
--   2024-05-01T12:02:00|2|2
--   2024-05-01T12:03:00|1|1
-- expect: SELECT rows_in, rows_used, rows_late FROM millstream.sources
--   12|10|2
