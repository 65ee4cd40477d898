-- A model over another model.
select colour from {{ ref('colours') }} where n > 1
