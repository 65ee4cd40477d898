-- Nexmark q0, pass-through: every bid, unchanged, into Parquet. Measures the way from source to sink.
--
-- Expect 9,200 of 10,000 events: 46 of 50 are bids.

CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '10000', events_per_second = 'unlimited');

CREATE SINK q0 AS
SELECT auction, bidder, price, date_time, extra FROM bid
WITH (connector = 'parquet', path = 'out/nexmark/q0/');

-- expect: SELECT count(*) FROM q0
--   9200
