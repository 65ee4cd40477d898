-- Word count over lines from a socket, the "hello world" of streaming.
--
--     nc -lk 9999                                                                              (in one terminal)
--     cargo run --release --bin millstream -- run sql-examples/word_count_socket.sql           (in another)
--
-- Type words into the first terminal: the second shows the changed counts within a trigger interval. `totals` counts from
-- the beginning; `batches` counts each micro-batch by itself, as Spark's NetworkWordCount does.

CREATE STREAM lines (line VARCHAR)
WITH (connector = 'socket', host = '127.0.0.1', port = '9999', format = 'text');

CREATE VIEW words AS
SELECT _epoch AS batch, word
FROM (SELECT _epoch, unnest(string_to_array(line, ' ')) AS word FROM lines)
WHERE word <> '';

CREATE MATERIALIZED VIEW totals AS SELECT word, count(*) AS n FROM words GROUP BY word;
CREATE MATERIALIZED VIEW batches AS SELECT batch, word, count(*) AS n FROM words GROUP BY batch, word;

CREATE SINK screen FROM totals WITH (connector = 'console');

-- feed: 9999 data/words/macbeth.txt
-- until: SELECT sum(n) = 21 FROM totals
-- expect: SELECT word, n FROM totals WHERE n > 1 ORDER BY n DESC, word
--   and|2
--   day|2
--   tomorrow|2
-- expect: SELECT sum(n) FROM batches
--   21
