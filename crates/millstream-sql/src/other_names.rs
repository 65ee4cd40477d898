//! Functions of other engines, and what to write here.

/// What is written for a function that other engines have: `explode` is `unnest`.
pub(crate) fn written_here(function: &str) -> Option<&'static str> {
    let function = function.to_ascii_lowercase();
    OTHER_NAMES.iter().find(|(names, _)| names.contains(&function.as_str())).map(|(_, here)| *here)
}

const OTHER_NAMES: [(&[&str], &str); 31] = [
    (&["explode", "posexplode", "explode_outer"], "unnest(array)"),
    (&["split"], "string_to_array(text, separator)"),
    (&["collect_list"], "array_agg(x)"),
    (&["collect_set"], "array_agg(DISTINCT x)"),
    (&["max_by", "arg_max"], "first_value(x ORDER BY y DESC)"),
    (&["min_by", "arg_min"], "first_value(x ORDER BY y)"),
    (&["first"], "first_value(x ORDER BY y)"),
    (&["last"], "last_value(x ORDER BY y)"),
    (&["any"], "bool_or(x)"),
    (&["every"], "bool_and(x)"),
    (&["if", "iff"], "CASE WHEN condition THEN a ELSE b END"),
    (&["isnull"], "x IS NULL"),
    (&["size", "array_size"], "cardinality(array)"),
    (&["sort_array"], "array_sort(array)"),
    (&["date_diff", "datediff", "timestampdiff"], "b - a, an INTERVAL, or date_part('epoch', b) - date_part('epoch', a), in seconds"),
    (&["date_add", "dateadd", "date_sub", "add_months"], "ts + INTERVAL '1 day'"),
    (&["year", "month", "day", "hour", "minute", "second", "quarter", "dayofweek", "weekofyear"], "extract(unit FROM ts)"),
    (&["unix_timestamp"], "to_unixtime(ts)"),
    (&["getdate", "sysdate"], "now()"),
    (&["percentile"], "percentile_cont(0.5) WITHIN GROUP (ORDER BY x)"),
    (&["percentile_approx"], "approx_percentile_cont(x, 0.5)"),
    (&["approx_count_distinct"], "approx_distinct(x)"),
    (&["count_if"], "count(*) FILTER (WHERE condition)"),
    (&["sum_distinct"], "sum(DISTINCT x)"),
    (&["group_concat", "listagg"], "string_agg(x, ',' ORDER BY y)"),
    (&["len"], "length(text)"),
    (&["locate"], "strpos(text, part)"),
    (&["startswith"], "starts_with(text, part)"),
    (&["endswith"], "ends_with(text, part)"),
    (&["rlike"], "text ~ pattern"),
    (&["window"], "FROM TUMBLE(t, ts, INTERVAL '1 minute')"),
];
