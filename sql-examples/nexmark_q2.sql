-- Nexmark q2, selection: the bids of some auctions. A filter that few rows pass.
--
-- Expect a few rows, all of auctions that are multiples of 123.

CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '10000', events_per_second = 'unlimited');

CREATE SINK q2 AS
SELECT auction, price FROM bid WHERE auction % 123 = 0
WITH (connector = 'parquet', path = 'out/nexmark/q2/');

-- expect: SELECT count(*) > 0, bool_and(auction % 123 = 0) FROM q2
--   true|true
-- expect: SELECT (SELECT count(*) FROM q2) = (SELECT count(*) FROM bid WHERE auction % 123 = 0)
--   true
