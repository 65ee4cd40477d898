-- Nexmark q4, average price per category: the mean of the winning bids of all auctions. An aggregate over an aggregate over a join.
--
-- Expect one row per category, corrected whenever a higher bid comes in time. The five categories, 10 to 14, are printed.

CREATE STREAM auction WITH (connector = 'nexmark', table = 'auction', event_limit = '5000', events_per_second = 'unlimited');
CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid', event_limit = '5000', events_per_second = 'unlimited');

CREATE MATERIALIZED VIEW q4 AS
SELECT category, avg(final) AS mean
FROM (
    SELECT max(b.price) AS final, a.category
    FROM auction a, bid b
    WHERE a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.category
)
GROUP BY category;

SELECT category, mean FROM q4 ORDER BY category LIMIT 5;

-- expect: SELECT count(*), bool_and(mean > 0) FROM q4
--   5|true
