-- Nexmark q1, currency conversion: bids in euros. A projection with decimal arithmetic.
--
-- Expect 9,200 rows whose price is 0.908 of the price in dollars, exactly.

CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '10000', events_per_second = 'unlimited');

CREATE SINK q1 AS
SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid
WITH (connector = 'parquet', path = 'out/nexmark/q1/');

-- expect: SELECT count(*) FROM q1
--   9200
-- expect: SELECT sum(price) = (SELECT 0.908 * sum(price) FROM bid) FROM q1
--   true
