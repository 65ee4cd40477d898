-- Trades priced by the last quote at or before them, in three ways of joining by time.
--
--     cargo run --release --bin millstream -- run sql-examples/trades_priced.sql
--
-- Quotes come in two files and a second late, so that a trade may be there before its quote is. An ASOF join follows: it corrects
-- the price, or, with EMIT ON WINDOW CLOSE, waits until the watermarks prove it. A lookup FOR SYSTEM_TIME AS OF PROCTIME() takes what is
-- known when the trade comes, and never changes its mind.

CREATE STREAM trades (
    id     BIGINT NOT NULL,
    symbol VARCHAR,
    ts     TIMESTAMP NOT NULL,
    shares BIGINT,
    WATERMARK FOR ts AS ts - INTERVAL '1 second'
) WITH (connector = 'files', path = 'sql-examples/data/trades/', format = 'csv', bounded = 'true');

CREATE STREAM quotes (
    symbol VARCHAR,
    ts     TIMESTAMP NOT NULL,
    price  BIGINT,
    WATERMARK FOR ts AS ts - INTERVAL '2 seconds'
) WITH (
    connector = 'files', path = 'sql-examples/data/quotes/', format = 'csv',
    order = 'name', max_files_per_epoch = '1', bounded = 'true'
);

-- Always right for what has come so far; a trade before the first quote stays, without a price.
CREATE MATERIALIZED VIEW priced AS
SELECT t.id, t.symbol, t.shares * q.price AS amount
FROM trades t ASOF LEFT JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol = q.symbol;

-- The same, as versions of the quote of a symbol: each trade once, when its price is certain.
CREATE SINK settled AS
SELECT t.ts, t.id, t.symbol, t.shares * q.price AS amount
FROM trades t JOIN quotes FOR SYSTEM_TIME AS OF t.ts AS q ON t.symbol = q.symbol
EMIT ON WINDOW CLOSE
WITH (connector = 'parquet', path = 'out/trades_priced/');

-- Reference data that changes by hand, as it is when a trade comes.
CREATE TABLE fees (symbol VARCHAR, percent BIGINT);

INSERT INTO fees VALUES ('ACME', 2), ('BOLT', 5);

CREATE MATERIALIZED VIEW fee_of_trade AS
SELECT t.id, f.percent FROM trades t JOIN fees FOR SYSTEM_TIME AS OF PROCTIME() AS f ON t.symbol = f.symbol;

SELECT * FROM priced ORDER BY id;

-- expect: SELECT * FROM priced ORDER BY id
--   1|ACME|1000
--   2|ACME|2040
--   3|BOLT|NULL
--   4|ACME|102
--   5|BOLT|408
-- expect: SELECT id, symbol, amount FROM settled ORDER BY id
--   1|ACME|1000
--   2|ACME|2040
--   4|ACME|102
--   5|BOLT|408
-- expect: SELECT * FROM fee_of_trade ORDER BY id
--   1|2
--   2|2
--   3|5
--   4|2
--   5|5
