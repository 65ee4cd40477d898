-- Running totals: the state of every account, as of the newest micro-batch.
--
--     cargo run --release --bin millstream -- run sql-examples/running_totals.sql
--
-- A materialized view over an unbounded stream is what updateStateByKey is in Spark Streaming, except that only the groups
-- that new rows touch are computed again. It can be queried at any time; every change can be sent to a sink as well.

CREATE STREAM payments (account VARCHAR NOT NULL, amount DECIMAL(12, 2))
WITH (connector = 'files', path = 'sql-examples/data/payments/', format = 'csv', order = 'name', max_files_per_epoch = '1', bounded = 'true');

CREATE MATERIALIZED VIEW balances AS
SELECT account, sum(amount) AS balance, count(*) AS payments, max(amount) AS largest
FROM payments
GROUP BY account;

-- Every change with its op (+I, -U, +U, -D) and its epoch.
CREATE SINK balance_changes FROM balances
WITH (connector = 'json', path = 'out/running_totals/changes/', mode = 'changelog');

-- The whole result, as a new version each time; out/running_totals/now/current points at the newest.
CREATE SINK balances_now FROM balances
WITH (connector = 'parquet', path = 'out/running_totals/now/', mode = 'complete');

SELECT * FROM balances ORDER BY account;

-- expect: SELECT * FROM balances ORDER BY account
--   ann|826.48|9|171.35
--   bob|596.09|5|189.91
--   cid|317.60|6|96.47
