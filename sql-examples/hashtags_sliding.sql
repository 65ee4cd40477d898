-- The three most used hashtags of the last minute, every ten seconds.
--
--     cargo run --release --bin millstream -- run sql-examples/hashtags_sliding.sql
--
-- HOP windows overlap: with a size of 60 and a slide of 10 seconds each tweet counts in six of them. Any relation may be windowed:
-- here the tweets are split into words first.

CREATE STREAM tweets (
    id         BIGINT,
    created_at TIMESTAMP NOT NULL,
    text       VARCHAR,
    WATERMARK FOR created_at AS created_at - INTERVAL '5 seconds'
) WITH (connector = 'files', path = 'sql-examples/data/hashtags/', format = 'json', order = 'name', bounded = 'true');

CREATE VIEW hashtags AS
SELECT created_at, tag
FROM (SELECT created_at, unnest(string_to_array(text, ' ')) AS tag FROM tweets)
WHERE tag LIKE '#%';

CREATE MATERIALIZED VIEW tag_counts AS
SELECT window_start, window_end, tag, count(*) AS n
FROM HOP(hashtags, created_at, INTERVAL '10 seconds', INTERVAL '60 seconds')
GROUP BY window_start, window_end, tag;

CREATE MATERIALIZED VIEW top_tags AS
SELECT window_end, place, tag, n
FROM (
    SELECT window_end, tag, n, row_number() OVER (PARTITION BY window_end ORDER BY n DESC, tag) AS place
    FROM tag_counts
)
WHERE place <= 3;

SELECT * FROM top_tags WHERE window_end = TIMESTAMP '2024-05-01 09:02:00' ORDER BY place;

-- expect: SELECT place, tag, n FROM top_tags WHERE window_end = TIMESTAMP '2024-05-01 09:02:00' ORDER BY place
--   1|#rust|4
--   2|#arrow|2
--   3|#sql|2
-- expect: SELECT count(DISTINCT window_end) FROM top_tags
--   19
