-- tumble, not of Nexmark: bids per auction in tumbling windows of ten seconds.
-- output: final
SELECT auction, window_start, window_end, count(*) AS bids
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY auction, window_start, window_end
