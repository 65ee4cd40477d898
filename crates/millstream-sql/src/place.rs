//! Where a name stands in a query, for errors of those who know only the name.

use sqlparser::ast::{Expr, Ident, ObjectNamePart, Query};
use sqlparser::tokenizer::Span;

use crate::visit::{any_expr, any_relation};

fn is_named(ident: &Ident, name: &str) -> bool {
    ident.value.eq_ignore_ascii_case(name) && ident.span.start.line > 0
}

/// Where a column or a function is first named in a query.
pub fn place_of_name(query: &Query, name: &str) -> Option<Span> {
    let mut found = None;
    any_expr(query, &mut |expr| {
        let ident = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(idents) => idents.last(),
            Expr::Function(function) => function.name.0.last().and_then(ObjectNamePart::as_ident),
            _ => None,
        };
        found = ident.filter(|ident| is_named(ident, name)).map(|ident| ident.span);
        found.is_some()
    });
    found
}

/// Where a relation is first named in a query.
pub fn place_of_relation(query: &Query, name: &str) -> Option<Span> {
    let mut found = None;
    any_relation(query, &mut |relation| {
        let ident = relation.0.last().and_then(ObjectNamePart::as_ident);
        found = ident.filter(|ident| is_named(ident, name)).map(|ident| ident.span);
        found.is_some()
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_query;

    #[test]
    fn names_are_found_in_subqueries() {
        let query = parse_query("SELECT a FROM t\nWHERE EXISTS (SELECT f(B) FROM u)").expect("parses");
        let start = |span: Option<Span>| span.map(|span| (span.start.line, span.start.column));
        assert_eq!(start(place_of_name(&query, "b")), Some((2, 24)));
        assert_eq!(start(place_of_name(&query, "f")), Some((2, 22)));
        assert_eq!(start(place_of_relation(&query, "u")), Some((2, 32)));
        assert_eq!(place_of_name(&query, "c"), None);
    }
}
