-- Sensor readings enriched from a reference table; readings of unknown sensors go to a second sink.
--
--     cargo run --release --bin millstream -- run sql-examples/sensors_enrich.sql
--
-- Readings are raw values between 0 and 1. data/sensor_types.csv says what each sensor measures and in which range. An inner
-- join alone would drop readings of sensors that it does not list; here they are kept for reconciliation.

CREATE STREAM readings (
    sensor_id BIGINT NOT NULL,
    ts        TIMESTAMP NOT NULL,
    value     DOUBLE
) WITH (
    connector = 'files', path = 'sql-examples/data/sensors/', format = 'csv', timestamp_format = 'epoch_ms',
    order = 'name', bounded = 'true'
);

CREATE EXTERNAL TABLE sensor_types (sensor_id BIGINT, kind VARCHAR, unit VARCHAR, min_range DOUBLE, max_range DOUBLE)
STORED AS CSV LOCATION 'sql-examples/data/sensor_types.csv' OPTIONS ('format.has_header' 'true');

CREATE SINK enriched AS
SELECT r.sensor_id, r.ts, s.kind, r.value * (s.max_range - s.min_range) + s.min_range AS measured, s.unit
FROM readings r JOIN sensor_types s ON r.sensor_id = s.sensor_id
WITH (connector = 'parquet', path = 'out/sensors_enrich/known/');

CREATE SINK unknown AS
SELECT r.sensor_id, r.ts, r.value
FROM readings r LEFT JOIN sensor_types s ON r.sensor_id = s.sensor_id
WHERE s.sensor_id IS NULL
WITH (connector = 'json', path = 'out/sensors_enrich/unknown/');

-- expect: SELECT kind, unit, count(*) AS n, round(min(measured), 2) AS least, round(max(measured), 2) AS most FROM enriched GROUP BY kind, unit ORDER BY kind
--   anemometer|km/h|32|0.0|180.0
--   barometer|hPa|9|953.0|1049.0
--   hygrometer|%|15|0.0|88.0
--   thermometer|C|22|-17.2|50.0
-- expect: SELECT sensor_id, count(*) FROM unknown GROUP BY sensor_id ORDER BY sensor_id
--   101|6
--   102|6
