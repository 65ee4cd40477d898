-- q16, channel statistics: as q15, for each channel and day.
-- output: changelog
SELECT channel, to_char(date_time, '%Y-%m-%d') AS day, max(to_char(date_time, '%H:%M')) AS minute,
       count(*) AS bids,
       count(*) FILTER (WHERE price < 10000) AS low_bids,
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle_bids,
       count(*) FILTER (WHERE price >= 1000000) AS high_bids,
       count(DISTINCT bidder) AS bidders,
       count(DISTINCT auction) AS auctions
FROM bid
GROUP BY channel, to_char(date_time, '%Y-%m-%d')
