-- Word count over a directory of text files.
--
--     cargo run --release --bin millstream -- run sql-examples/word_count_files.sql
--
-- Each file under data/words/ is taken once. `bounded` ends the stream when the files that are there now are read, so the SELECT
-- at the end runs. Without it the program would go on and count files as they appear.

CREATE STREAM lines (line VARCHAR)
WITH (connector = 'files', path = 'sql-examples/data/words/', format = 'text', order = 'name', bounded = 'true');

CREATE MATERIALIZED VIEW word_count AS
SELECT word, count(*) AS n
FROM (SELECT unnest(string_to_array(lower(line), ' ')) AS word FROM lines)
GROUP BY word;

SELECT word, n FROM word_count ORDER BY n DESC, word LIMIT 5;

-- expect: SELECT word, n FROM word_count ORDER BY n DESC, word LIMIT 5
--   to|6
--   the|4
--   and|3
--   of|3
--   tomorrow|3
-- expect: SELECT count(*), sum(n) FROM word_count
--   37|56
