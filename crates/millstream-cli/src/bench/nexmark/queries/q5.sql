-- q5, hot items: the auctions with most bids in the last ten seconds, every two seconds.
-- output: final
SELECT c.auction, c.num, c.window_start, c.window_end
FROM (
    SELECT auction, count(*) AS num, window_start, window_end
    FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end
) c
JOIN (
    SELECT max(num) AS num, window_start, window_end
    FROM (
        SELECT count(*) AS num, window_start, window_end
        FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
        GROUP BY auction, window_start, window_end
    ) n
    GROUP BY window_start, window_end
) m ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.num
