-- q11, user sessions: bids of each bidder until ten seconds pass without one.
-- output: final
SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(bid PARTITION BY bidder, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
