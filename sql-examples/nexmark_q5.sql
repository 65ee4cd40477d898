-- Nexmark q5, hot items: the auctions with most bids in the last ten seconds, every two seconds. A hopping window and a maximum of it.
--
-- Expect for each window the auctions whose count is the largest of the window; ties are all there. The events take half a second, so that
-- five windows hold all of them: a line of each is printed, with auction 1200 and its 793 bids.

CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '5000', events_per_second = 'unlimited');

CREATE MATERIALIZED VIEW bids_per_window AS
SELECT window_start, window_end, auction, count(*) AS n
FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY window_start, window_end, auction;

CREATE MATERIALIZED VIEW q5 AS
SELECT b.auction, b.n, b.window_end
FROM bids_per_window b
JOIN (SELECT window_end, max(n) AS most FROM bids_per_window GROUP BY window_end) m
  ON b.window_end = m.window_end AND b.n = m.most;

SELECT window_end, auction, n FROM q5 ORDER BY window_end, auction LIMIT 5;

-- expect: SELECT count(DISTINCT window_end) = (SELECT count(DISTINCT window_end) FROM bids_per_window) FROM q5
--   true
-- expect: SELECT count(*) FROM q5 q JOIN bids_per_window b ON q.window_end = b.window_end AND b.n > q.n
--   0
