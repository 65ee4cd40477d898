//! Walks over the syntax tree, all of them through the same code.
//!
//! The walk of `sqlparser` is compiled once for each type that walks, over the whole tree, and the tree is large: a few dozen closures keep
//! the compiler busy for minutes. So there is one type here that looks and one that changes, and both ask whoever walks dynamically. No
//! other place has a `Visitor` or a `VisitorMut`, or calls the `visit_..` functions of `sqlparser`.
//!
//! ```
//! use millstream_sql::{parse_query, visit};
//!
//! let query = parse_query("SELECT a FROM t WHERE EXISTS (SELECT b FROM u)").expect("a query");
//! let mut relations = Vec::new();
//! visit::each_relation(&*query, &mut |name| relations.push(name.to_string()));
//! assert_eq!(relations, ["t", "u"]);
//! ```

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, ObjectName, OrderBy, OrderByExpr, Query, Select, Statement, TableFactor, Visit, VisitMut, Visitor, VisitorMut};

/// Looks at a tree on a walk: `pre_` comes before the parts of what is visited. [`ControlFlow::Break`] ends the walk.
pub trait Walk {
    /// Before the parts of a query.
    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Before the parts of a SELECT.
    fn pre_visit_select(&mut self, _select: &Select) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// At the name of a relation.
    fn pre_visit_relation(&mut self, _relation: &ObjectName) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Before the parts of what stands after FROM or JOIN.
    fn pre_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Before the parts of an expression.
    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Changes a tree on a walk: `pre_` comes before the parts of what is visited, `post_` after them. What is put in place before the parts
/// is walked over, what is put in place after them is not. [`ControlFlow::Break`] ends the walk.
pub trait WalkMut {
    /// Before the parts of a query.
    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of a query.
    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Before the parts of a SELECT.
    fn pre_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of a SELECT.
    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// At the name of a relation.
    fn post_visit_relation(&mut self, _relation: &mut ObjectName) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of what stands after FROM or JOIN.
    fn post_visit_table_factor(&mut self, _factor: &mut TableFactor) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Before the parts of an expression.
    fn pre_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After the parts of an expression.
    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What a walk can start from. The walk from each of them is compiled in this crate, so that the crates above need none of their own.
pub trait Node {
    /// Looks at the tree from here; see [`walk`].
    fn accept(&self, walker: &mut dyn Walk) -> ControlFlow<()>;

    /// Changes the tree from here; see [`walk_mut`].
    fn accept_mut(&mut self, walker: &mut dyn WalkMut) -> ControlFlow<()>;
}

macro_rules! nodes {
    ($($node:ty),+) => {
        $(impl Node for $node {
            fn accept(&self, walker: &mut dyn Walk) -> ControlFlow<()> {
                Visit::visit(self, &mut Dispatch(walker))
            }

            fn accept_mut(&mut self, walker: &mut dyn WalkMut) -> ControlFlow<()> {
                VisitMut::visit(self, &mut DispatchMut(walker))
            }
        })+
    };
}

nodes!(Expr, OrderBy, Query, Select, Statement, Vec<OrderByExpr>);

/// Walks over a part of a statement to look at it. The result is that of the last step.
pub fn walk(node: &dyn Node, walker: &mut dyn Walk) -> ControlFlow<()> {
    node.accept(walker)
}

/// Walks over a part of a statement to change it. The result is that of the last step.
pub fn walk_mut(node: &mut dyn Node, walker: &mut dyn WalkMut) -> ControlFlow<()> {
    node.accept_mut(walker)
}

/// Looks at every expression, each before its parts.
pub fn each_expr(node: &dyn Node, look: &mut dyn FnMut(&Expr)) {
    any_expr(node, &mut |expr| {
        look(expr);
        false
    });
}

/// Whether `test` holds for an expression. Each is tested before its parts, up to the first for which it holds.
pub fn any_expr(node: &dyn Node, test: &mut dyn FnMut(&Expr) -> bool) -> bool {
    struct AnyExpr<'a>(&'a mut dyn FnMut(&Expr) -> bool);
    impl Walk for AnyExpr<'_> {
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if (self.0)(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    walk(node, &mut AnyExpr(test)).is_break()
}

/// Changes every expression, each after its parts.
pub fn each_expr_mut(node: &mut dyn Node, change: &mut dyn FnMut(&mut Expr)) {
    struct EachExpr<'a>(&'a mut dyn FnMut(&mut Expr));
    impl WalkMut for EachExpr<'_> {
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            (self.0)(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(node, &mut EachExpr(change));
}

/// Looks at the name of every relation.
pub fn each_relation(node: &dyn Node, look: &mut dyn FnMut(&ObjectName)) {
    any_relation(node, &mut |relation| {
        look(relation);
        false
    });
}

/// Whether `test` holds for the name of a relation. They are tested up to the first for which it holds.
pub fn any_relation(node: &dyn Node, test: &mut dyn FnMut(&ObjectName) -> bool) -> bool {
    struct AnyRelation<'a>(&'a mut dyn FnMut(&ObjectName) -> bool);
    impl Walk for AnyRelation<'_> {
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            if (self.0)(relation) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    walk(node, &mut AnyRelation(test)).is_break()
}

/// Changes the name of every relation.
pub fn each_relation_mut(node: &mut dyn Node, change: &mut dyn FnMut(&mut ObjectName)) {
    struct EachRelation<'a>(&'a mut dyn FnMut(&mut ObjectName));
    impl WalkMut for EachRelation<'_> {
        fn post_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
            (self.0)(relation);
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(node, &mut EachRelation(change));
}

/// The one type that `sqlparser` looks with.
struct Dispatch<'a>(&'a mut dyn Walk);

impl Visitor for Dispatch<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.0.pre_visit_query(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.0.pre_visit_select(select)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.0.pre_visit_relation(relation)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.0.pre_visit_table_factor(factor)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.0.pre_visit_expr(expr)
    }
}

/// The one type that `sqlparser` changes with.
struct DispatchMut<'a>(&'a mut dyn WalkMut);

impl VisitorMut for DispatchMut<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.pre_visit_query(query)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.post_visit_query(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.0.pre_visit_select(select)
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.0.post_visit_select(select)
    }

    fn post_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.0.post_visit_relation(relation)
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        self.0.post_visit_table_factor(factor)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.0.pre_visit_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.0.post_visit_expr(expr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_query;

    /// Writes down what it comes by.
    struct Log(Vec<String>);

    impl WalkMut for Log {
        fn post_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
            self.0.push(format!("relation {relation}"));
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            self.0.push(format!("before {expr}"));
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            self.0.push(format!("after {expr}"));
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn parts_come_between_before_and_after() {
        let mut query = parse_query("SELECT a + 1 FROM t").unwrap();
        let mut log = Log(Vec::new());
        assert!(walk_mut(&mut *query, &mut log).is_continue());
        assert_eq!(log.0, ["before a + 1", "before a", "after a", "before 1", "after 1", "after a + 1", "relation t"]);
    }

    #[test]
    fn a_test_ends_with_the_first_for_which_it_holds() {
        let query = parse_query("SELECT a + b FROM t, u").unwrap();
        let mut seen = Vec::new();
        let found = any_expr(&*query, &mut |expr| {
            seen.push(expr.to_string());
            matches!(expr, Expr::Identifier(_))
        });
        assert!(found);
        assert_eq!(seen, ["a + b", "a"]);
        assert!(!any_relation(&*query, &mut |name| name.to_string() == "v"));
    }

    #[test]
    fn changes_reach_subqueries() {
        let mut query = parse_query("SELECT a FROM t WHERE EXISTS (SELECT a FROM u)").unwrap();
        each_expr_mut(&mut *query, &mut |expr| {
            if let Expr::Identifier(ident) = expr {
                ident.value = "b".to_string();
            }
        });
        each_relation_mut(&mut *query, &mut |name| *name = ObjectName::from(vec!["v".into()]));
        assert_eq!(query.to_string(), "SELECT b FROM v WHERE EXISTS (SELECT b FROM v)");
    }
}
