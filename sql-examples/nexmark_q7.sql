-- Nexmark q7, highest bid: the bids with the highest price of each ten seconds.
--
-- Expect at least one row per window; none of its window's bids is higher. The events take half a second, so that there is one window: its
-- bid of 99,571,982 is printed.

CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '5000', events_per_second = 'unlimited');

CREATE MATERIALIZED VIEW highest AS
SELECT window_start, window_end, max(price) AS price
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW q7 AS
SELECT b.auction, b.price, b.bidder, b.date_time
FROM bid b JOIN highest h ON b.price = h.price AND b.date_time >= h.window_start AND b.date_time < h.window_end;

SELECT auction, price, bidder, date_time FROM q7 ORDER BY date_time, auction LIMIT 5;

-- expect: SELECT count(*) >= (SELECT count(*) FROM highest) FROM q7
--   true
-- expect: SELECT max(price) = (SELECT max(price) FROM bid) FROM q7
--   true
