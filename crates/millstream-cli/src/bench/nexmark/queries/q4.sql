-- q4, average price per category: the average of the highest valid bid of each auction, corrected as bids come.
-- output: changelog
SELECT category, avg(final) AS average
FROM (
    SELECT max(b.price) AS final, a.category
    FROM auction a JOIN bid b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.category
) q
GROUP BY category
