-- Nexmark q8, new users: people who offered something in the same ten seconds in which they signed up. A join of two windowed streams.
--
-- Expect one row per person and window, 90 in all. Five are printed, the persons 1000 to 1004.

CREATE STREAM person WITH (connector = 'nexmark', table = 'person', event_limit = '10000', events_per_second = 'unlimited');
CREATE STREAM auction WITH (connector = 'nexmark', table = 'auction', event_limit = '10000', events_per_second = 'unlimited');

CREATE MATERIALIZED VIEW q8 AS
SELECT p.id, p.name, p.window_start
FROM (SELECT DISTINCT id, name, window_start FROM TUMBLE(person, date_time, INTERVAL '10 seconds')) p
JOIN (SELECT DISTINCT seller, window_start FROM TUMBLE(auction, date_time, INTERVAL '10 seconds')) a
  ON p.id = a.seller AND p.window_start = a.window_start;

SELECT id, name, window_start FROM q8 ORDER BY id LIMIT 5;

-- expect: SELECT count(*) > 0, count(*) = count(DISTINCT id) FROM q8
--   true|true
