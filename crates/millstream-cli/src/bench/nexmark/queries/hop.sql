-- hop, not of Nexmark: bids per auction in hopping windows of ten seconds, every two seconds.
-- output: final
SELECT auction, window_start, window_end, count(*) AS bids
FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY auction, window_start, window_end
