-- q13, side input: bids with a value looked up in a table at rest.
-- output: append
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid b JOIN side_input s ON b.auction % 10000 = s.key
