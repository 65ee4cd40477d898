-- q12, processing-time windows: bids of each bidder in ten seconds of arrival. There is no batch answer to compare with.
-- output: final
-- batch: none
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, arrived, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
