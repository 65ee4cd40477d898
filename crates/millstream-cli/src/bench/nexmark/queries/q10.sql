-- q10, log: every bid with the day and the minute that files could be divided by.
-- output: append
SELECT auction, bidder, price, date_time, extra, to_char(date_time, '%Y-%m-%d') AS day, to_char(date_time, '%H:%M') AS minute
FROM bid
