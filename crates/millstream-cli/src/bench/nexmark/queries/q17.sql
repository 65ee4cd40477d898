-- q17, auction statistics: counts, lowest, highest, average and total price of each auction and day.
-- output: changelog
SELECT auction, to_char(date_time, '%Y-%m-%d') AS day,
       count(*) AS bids,
       count(*) FILTER (WHERE price < 10000) AS low_bids,
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS middle_bids,
       count(*) FILTER (WHERE price >= 1000000) AS high_bids,
       min(price) AS lowest, max(price) AS highest, avg(price) AS average, sum(price) AS total
FROM bid
GROUP BY auction, to_char(date_time, '%Y-%m-%d')
