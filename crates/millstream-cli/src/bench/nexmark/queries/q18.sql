-- q18, find the last bid of each bidder on each auction.
-- output: changelog
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, extra) AS place FROM bid
) w
WHERE place = 1
