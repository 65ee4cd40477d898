-- A model over what the server has.
select colour, count(*) as n from public.sales group by colour
