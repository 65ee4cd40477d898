-- Makes materialized views, which dbt has no word for here.
{% materialization live, adapter='postgres' %}
  {%- set target = this.incorporate(type='view') -%}
  {{ run_hooks(pre_hooks) }}
  {% call statement('main', auto_begin=False) -%}
    COMMIT; CREATE OR REPLACE MATERIALIZED VIEW {{ target }} AS {{ sql }}
  {%- endcall %}
  {{ run_hooks(post_hooks) }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}
