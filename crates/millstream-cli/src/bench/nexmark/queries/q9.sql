-- q9, winning bids: the highest valid bid of each auction.
-- output: changelog
SELECT id, item_name, seller, category, auction, bidder, price, bid_time, bid_extra
FROM (
    SELECT a.id, a.item_name, a.seller, a.category, b.auction, b.bidder, b.price, b.date_time AS bid_time, b.extra AS bid_extra,
           row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time, b.bidder, b.extra) AS place
    FROM auction a JOIN bid b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
) w
WHERE place = 1
