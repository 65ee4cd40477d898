select colour, count(*) as n from public.sales group by colour
