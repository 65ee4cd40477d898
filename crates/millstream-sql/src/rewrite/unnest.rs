//! `FROM t CROSS JOIN UNNEST(t.tags) AS u(tag)`: arrays of a relation beside it as rows.
//!
//! DataFusion unnests in the select list only. The relation that has the array becomes
//! `(SELECT *, unnest(t.tags) AS tag FROM t WHERE t.tags IS NOT NULL) AS t`, and `u.tag` becomes `t.tag`. With LEFT JOIN ..
//! ON true rows whose array is empty or NULL stay, with NULL. The element's column then belongs to `t` in `*` as well.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Spanned, TableAlias,
    TableFactor, Value, ValueWithSpan,
};

use super::{alias, derived, qualifier, table, template, visit_step};
use crate::error::{Result, SqlError};
use crate::visit::{WalkMut, each_expr, each_expr_mut, walk_mut};

/// Rewrites the lateral UNNESTs of `query`.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    struct Rewriter {
        result: Result<()>,
    }
    impl WalkMut for Rewriter {
        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
            visit_step(&mut self.result, rewrite_select(select, query.order_by.as_mut()))
        }
    }
    let mut rewriter = Rewriter { result: Ok(()) };
    let _ = walk_mut(query, &mut rewriter);
    rewriter.result
}

/// A lateral UNNEST.
struct Lateral {
    array: Expr,
    /// The relations that the array names; none if its columns are not qualified.
    relations: BTreeSet<String>,
    alias: TableAlias,
    keeps_empty: bool,
}

fn rewrite_select(select: &mut Select, mut order_by: Option<&mut OrderBy>) -> Result<()> {
    // `FROM t, UNNEST(t.tags) AS u(tag)` is the same as a cross join.
    let mut index = 1;
    while index < select.from.len() {
        if lateral(&select.from[index].relation, false)?.is_some() {
            let from = select.from.remove(index);
            let relation = from.relation;
            select.from[index - 1].joins.push(Join {
                relation,
                global: false,
                join_operator: JoinOperator::CrossJoin(JoinConstraint::None),
            });
            select.from[index - 1].joins.extend(from.joins);
        } else {
            index += 1;
        }
    }
    for from in 0..select.from.len() {
        let mut join = 0;
        while join < select.from[from].joins.len() {
            let keeps_empty = match &select.from[from].joins[join].join_operator {
                JoinOperator::CrossJoin(JoinConstraint::None) => Some(false),
                JoinOperator::Join(on) | JoinOperator::Inner(on) if is_true(on) => Some(false),
                JoinOperator::Left(on) | JoinOperator::LeftOuter(on) if is_true(on) => Some(true),
                _ => None,
            };
            let unnest = match keeps_empty {
                Some(keeps_empty) => lateral(&select.from[from].joins[join].relation, keeps_empty)?,
                None => None,
            };
            let Some(unnest) = unnest else {
                join += 1;
                continue;
            };
            select.from[from].joins.remove(join);
            let (relation, column) = place(select, from, join, &unnest)?;
            replace_references(select, order_by.as_deref_mut(), &unnest.alias, &relation, &column);
        }
    }
    Ok(())
}

/// The UNNEST of columns after FROM; `None` for one of a constant array.
fn lateral(factor: &TableFactor, keeps_empty: bool) -> Result<Option<Lateral>> {
    let TableFactor::UNNEST { alias, array_exprs, with_offset, with_ordinality, .. } = factor else { return Ok(None) };
    let [array] = array_exprs.as_slice() else { return Ok(None) };
    let (mut relations, mut is_constant) = (BTreeSet::new(), true);
    each_expr(array, &mut |expr| match expr {
        Expr::Identifier(_) => is_constant = false,
        Expr::CompoundIdentifier(parts) => {
            is_constant = false;
            relations.extend(parts.first().map(|part| part.value.clone()));
        }
        _ => {}
    });
    if is_constant {
        return Ok(None);
    }
    let hint = "Write `CROSS JOIN UNNEST(t.tags) AS u(tag)`.";
    if *with_offset || *with_ordinality {
        return Err(SqlError::new("UNNEST WITH ORDINALITY or OFFSET is not supported").with_hint(hint).at(array.span()));
    }
    match alias {
        Some(alias) if alias.columns.len() <= 1 => Ok(Some(Lateral { array: array.clone(), relations, alias: alias.clone(), keeps_empty })),
        _ => Err(SqlError::new(format!("UNNEST({array}) has no alias for its one column")).with_hint(hint).at(array.span())),
    }
}

fn is_true(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::On(Expr::Value(ValueWithSpan { value: Value::Boolean(true), .. })))
}

/// Puts the UNNEST into the relation before join number `join` that has the array. Gives that relation's name and the
/// element's column.
fn place(select: &mut Select, from: usize, join: usize, unnest: &Lateral) -> Result<(Ident, Ident)> {
    let column = unnest.alias.columns.first().map_or_else(|| unnest.alias.name.clone(), |column| column.name.clone());
    let from = &mut select.from[from];
    let candidates = std::iter::once((&mut from.relation, true)).chain(from.joins[..join].iter_mut().map(|join| {
        let is_inner = matches!(join.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_));
        (&mut join.relation, is_inner)
    }));
    let mut candidates: Vec<_> = candidates.collect();
    let mut wanted = unnest.relations.iter();
    let found = match (wanted.next(), wanted.next()) {
        (None, _) if candidates.len() == 1 => Some(0),
        (Some(wanted), None) => candidates.iter().position(|(factor, _)| qualifier(factor).is_some_and(|name| name.value == *wanted)),
        _ => None,
    };
    let Some((factor, true)) = found.map(|index| candidates.swap_remove(index)) else {
        return Err(SqlError::new(format!("UNNEST({}) does not name one relation that is inner joined before it", unnest.array))
            .with_hint("Unnest in a subquery: `FROM (SELECT *, unnest(tags) AS tag FROM t) AS t`.")
            .at(unnest.array.span()));
    };
    let Some(name) = qualifier(factor) else {
        return Err(SqlError::new("the relation before UNNEST has no name").with_hint("Give it an alias.").at(unnest.array.span()));
    };
    let sql = if unnest.keeps_empty {
        "SELECT *, unnest(CASE WHEN array_length(__array) > 0 THEN __array ELSE make_array(NULL) END) AS __element FROM __relation"
    } else {
        "SELECT *, unnest(__array) AS __element FROM __relation WHERE __array IS NOT NULL"
    };
    let inner = std::mem::replace(factor, table(name.clone().into()));
    let mut subquery = template(sql, inner, &[("__array", &unnest.array)]);
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(SelectItem::ExprWithAlias { alias, .. }) = select.projection.last_mut()
    {
        *alias = column.clone();
    }
    *factor = derived(subquery, Some(alias(name.clone())));
    Ok((name, column))
}

/// Turns `u.tag`, and `u` where it names the element, into the column of the relation.
fn replace_references(select: &mut Select, order_by: Option<&mut OrderBy>, unnest: &TableAlias, relation: &Ident, column: &Ident) {
    let mut replace = |expr: &mut Expr| {
        let is_element = match expr {
            Expr::CompoundIdentifier(parts) => parts.len() == 2 && parts[0].value == unnest.name.value && parts[1].value == column.value,
            _ => false,
        };
        if is_element {
            *expr = Expr::CompoundIdentifier(vec![relation.clone(), column.clone()]);
        }
    };
    each_expr_mut(select, &mut replace);
    if let Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) = order_by {
        each_expr_mut(order, &mut replace);
    }
}
