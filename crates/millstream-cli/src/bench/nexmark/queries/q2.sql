-- q2, selection: the bids on some auctions.
-- output: append
SELECT auction, price FROM bid WHERE auction % 123 = 0
