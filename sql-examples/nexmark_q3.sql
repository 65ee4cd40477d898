-- Nexmark q3, local item suggestion: who sells items of category 10 in three states? A join of two streams.
--
-- Expect one row per such auction, 115 in all; the view equals the same SELECT run as a batch. Five are printed, of Kent (OR) and
-- Redmond (ID).

CREATE STREAM person WITH (connector = 'nexmark', table = 'person', event_limit = '10000', events_per_second = 'unlimited');
CREATE STREAM auction WITH (connector = 'nexmark', table = 'auction', event_limit = '10000', events_per_second = 'unlimited');

CREATE MATERIALIZED VIEW q3 AS
SELECT p.name, p.city, p.state, a.id
FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA');

SELECT name, city, state, id FROM q3 ORDER BY id LIMIT 5;

-- expect: SELECT count(*) > 0 FROM q3
--   true
-- expect: SELECT (SELECT count(*) FROM q3) = (SELECT count(*) FROM auction a JOIN person p ON a.seller = p.id WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA'))
--   true
