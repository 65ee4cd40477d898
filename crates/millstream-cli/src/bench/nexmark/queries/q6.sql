-- q6, average selling price by seller: over the last ten auctions each seller closed, by the time of the winning bid.
-- output: changelog
SELECT seller, date_time, id,
       avg(price) OVER (PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS average
FROM (
    SELECT a.id, a.seller, b.price, b.date_time,
           row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder, b.extra) AS place
    FROM auction a JOIN bid b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
) w
WHERE place = 1
