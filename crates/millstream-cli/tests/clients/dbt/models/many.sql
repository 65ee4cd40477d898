select colour from {{ ref('colours') }} where n > 1
