-- Change data: rows with an op, applied to a keyed stream.
--
--     cargo run --release --bin millstream -- run sql-examples/cdc.sql
--
-- data/accounts/ holds what a change-data-capture tool writes: r (read), c (create), u (update), d (delete). PRIMARY KEY makes it an
-- upsert stream: the engine keeps the newest row per key, and queries over it are corrected when a row changes or goes.

CREATE STREAM accounts (
    id      BIGINT NOT NULL,
    owner   VARCHAR,
    city    VARCHAR,
    balance BIGINT,
    PRIMARY KEY (id)
) WITH (
    connector = 'files', path = 'sql-examples/data/accounts/', format = 'json', op_column = 'op',
    order = 'name', max_files_per_epoch = '1', bounded = 'true'
);

CREATE MATERIALIZED VIEW per_city AS
SELECT city, count(*) AS accounts, sum(balance) AS balance FROM accounts GROUP BY city;

CREATE SINK per_city_changes FROM per_city WITH (connector = 'json', path = 'out/cdc/', mode = 'changelog');

SELECT * FROM per_city ORDER BY city;

-- expect: SELECT id, owner, city, balance FROM accounts ORDER BY id
--   2|bob|Rome|55
--   3|cid|Rome|70
--   4|dan|Oslo|20
-- expect: SELECT * FROM per_city ORDER BY city
--   Oslo|1|20
--   Rome|2|125
