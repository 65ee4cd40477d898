-- q3, local item suggestion: who sells in category 10 from three states. Both sides of the join are kept.
-- output: append
SELECT p.name, p.city, p.state, a.id
FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
