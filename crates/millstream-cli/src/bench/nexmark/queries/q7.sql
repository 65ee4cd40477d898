-- q7, highest bid: the highest bids of each ten seconds.
-- output: final
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra, b.window_start, b.window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') b
JOIN (
    SELECT max(price) AS price, window_start, window_end
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
    GROUP BY window_start, window_end
) m ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.price
