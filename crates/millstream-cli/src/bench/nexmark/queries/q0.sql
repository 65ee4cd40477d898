-- q0, pass through: what reading and writing alone cost.
-- output: append
SELECT auction, bidder, price, date_time, extra FROM bid
