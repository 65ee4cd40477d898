-- q14, calculation: conversion, a CASE over the hour, and counting characters of the bids in a price range.
-- output: append
SELECT auction, bidder, 0.908 * price AS price,
       CASE
           WHEN extract(HOUR FROM date_time) BETWEEN 8 AND 18 THEN 'day'
           WHEN extract(HOUR FROM date_time) <= 6 OR extract(HOUR FROM date_time) >= 20 THEN 'night'
           ELSE 'other'
       END AS time_of_day,
       date_time, extra, character_length(extra) - character_length(replace(extra, 'c', '')) AS c_count
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
