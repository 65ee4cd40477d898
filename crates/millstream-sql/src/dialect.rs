//! The lexical and grammatical dialect: sqlparser's generic one with a few rules of our own.
//!
//! [`MillstreamDialect`] answers as [`GenericDialect`] everywhere (also to the parser's checks of a dialect's type),
//! except that
//!
//! - `EMIT`, `WATERMARK`, `PARTITIONED` and `PRIMARY` are never taken as an alias without `AS`, so that a clause that
//!   follows a query is not eaten by it;
//! - a table may carry a version, `FOR SYSTEM_TIME AS OF`;
//! - `TABLE x`, `x PARTITION BY k` and `TABLE x PARTITION BY k ORDER BY o` are accepted where an argument stands, as SQL:2016 table
//!   functions write them;
//! - `a IS NOT DISTINCT FROM b AND c` binds as the standard says. sqlparser takes `b AND c` as the right operand.
//!
//! Everything the generic dialect declares is delegated by hand: a method forgotten here falls back to the
//! trait's default, which the test below compares with the generic dialect for a list of statements.

use std::any::TypeId;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, OrderByExpr,
};
use sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The dialect every statement is parsed with.
pub static DIALECT: MillstreamDialect = MillstreamDialect;

/// The name of the function that stands for `relation PARTITION BY keys` in the arguments of a table function.
pub const PARTITIONED_ARGUMENT: &str = "partitioned";

/// sqlparser's generic dialect with Millstream's additions; see the module documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct MillstreamDialect;

const GENERIC: GenericDialect = GenericDialect;

/// Words that start a clause of ours after a query, hence no alias unless `AS` stands before them.
const CLAUSE_WORDS: [&str; 4] = ["emit", "watermark", "partitioned", "primary"];

/// True if the token that was consumed last is one of [`CLAUSE_WORDS`], unquoted.
fn starts_clause(parser: &Parser) -> bool {
    match &parser.get_current_token().token {
        Token::Word(word) => word.quote_style.is_none() && CLAUSE_WORDS.iter().any(|clause| word.value.eq_ignore_ascii_case(clause)),
        _ => false,
    }
}

macro_rules! delegate {
    ($($method:ident),* $(,)?) => {
        $(fn $method(&self) -> bool {
            GENERIC.$method()
        })*
    };
}

impl Dialect for MillstreamDialect {
    fn dialect(&self) -> TypeId {
        GENERIC.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GENERIC.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GENERIC.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GENERIC.is_identifier_part(ch)
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    /// Named arguments with `=>` of every function, and none with `:` or `=`.
    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn is_select_item_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        explicit || (!starts_clause(parser) && GENERIC.is_select_item_alias(explicit, kw, parser))
    }

    fn is_table_factor_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        explicit || (!starts_clause(parser) && GENERIC.is_table_factor_alias(explicit, kw, parser))
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if !parser.peek_keyword(Keyword::TABLE) {
            return None;
        }
        match &parser.peek_nth_token_ref(1).token {
            Token::Word(_) => {
                parser.advance_token();
                Some(parser.parse_object_name(false).map(relation_argument).and_then(|relation| ordered_argument(parser, relation)))
            }
            Token::LParen => {
                parser.advance_token();
                Some(parser.parse_prefix().and_then(|relation| ordered_argument(parser, relation)))
            }
            _ => None,
        }
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        // Binds tighter than every operator: the left side is the relation alone.
        (parser.peek_keyword(Keyword::PARTITION) && is_keyword(parser, 1, Keyword::BY))
            .then(|| Ok(self.prec_value(Precedence::DoubleColon)))
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        if parser.peek_keyword(Keyword::PARTITION) && is_keyword(parser, 1, Keyword::BY) {
            return Some(parse_partitioned_argument(parser, expr));
        }
        let is_distinct = parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]);
        let is_not_distinct = !is_distinct && parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !is_distinct && !is_not_distinct {
            return None;
        }
        Some(parser.parse_subexpr(self.prec_value(Precedence::Is)).map(|right| {
            let (left, right) = (Box::new(expr.clone()), Box::new(right));
            let comparison = if is_distinct { Expr::IsDistinctFrom(left, right) } else { Expr::IsNotDistinctFrom(left, right) };
            // The parentheses keep the meaning when the text is parsed again by another dialect.
            Expr::Nested(Box::new(comparison))
        }))
    }

    delegate!(
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    );
}

fn is_keyword(parser: &Parser, nth: usize, keyword: Keyword) -> bool {
    matches!(&parser.peek_nth_token_ref(nth).token, Token::Word(word) if word.keyword == keyword)
}

/// A relation's name where an expression stands: an identifier, compound if qualified.
fn relation_argument(name: ObjectName) -> Expr {
    let mut idents: Vec<Ident> = name.0.iter().filter_map(ObjectNamePart::as_ident).cloned().collect();
    match idents.len() {
        1 => Expr::Identifier(idents.remove(0)),
        _ => Expr::CompoundIdentifier(idents),
    }
}

/// `TABLE relation ORDER BY ..` without a key.
fn ordered_argument(parser: &mut Parser, relation: Expr) -> Result<Expr, ParserError> {
    if !parser.peek_keyword(Keyword::ORDER) {
        return Ok(relation);
    }
    let order = parse_argument_order(parser)?;
    Ok(partitioned_argument(&relation, vec![], order))
}

/// Parses `PARTITION BY key | (key, ...) [ORDER BY key | (key, ...)]` after `relation` into the call
/// `partitioned(relation, key, ... ORDER BY key, ...)`.
fn parse_partitioned_argument(parser: &mut Parser, relation: &Expr) -> Result<Expr, ParserError> {
    parser.expect_keywords(&[Keyword::PARTITION, Keyword::BY])?;
    let keys = match parser.parse_expr()? {
        Expr::Tuple(keys) => keys,
        Expr::Nested(key) => vec![*key],
        key => vec![key],
    };
    let order = parse_argument_order(parser)?;
    Ok(partitioned_argument(relation, keys, order))
}

/// Parses `ORDER BY key | (key, ...)`, if it stands there. Several keys stand in parentheses, since a comma ends the argument.
fn parse_argument_order(parser: &mut Parser) -> Result<Vec<OrderByExpr>, ParserError> {
    if !parser.parse_keywords(&[Keyword::ORDER, Keyword::BY]) {
        return Ok(vec![]);
    }
    if !parser.consume_token(&Token::LParen) {
        return Ok(vec![parser.parse_order_by_expr()?]);
    }
    let keys = parser.parse_comma_separated(Parser::parse_order_by_expr)?;
    parser.expect_token(&Token::RParen)?;
    Ok(keys)
}

/// The call `partitioned(relation, key, ... ORDER BY key, ...)`.
fn partitioned_argument(relation: &Expr, keys: Vec<Expr>, order: Vec<OrderByExpr>) -> Expr {
    let clauses = if order.is_empty() { vec![] } else { vec![FunctionArgumentClause::OrderBy(order)] };
    let args = std::iter::once(relation.clone()).chain(keys).map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    function_call(PARTITIONED_ARGUMENT, args, clauses)
}

/// A call of a function by its plain name.
pub fn function_call(name: &str, args: Vec<FunctionArg>, clauses: Vec<FunctionArgumentClause>) -> Expr {
    Expr::Function(Function {
        name: Ident::new(name).into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(sql: &str) -> String {
        let mut parser = Parser::new(&DIALECT).try_with_sql(sql).expect("tokens");
        parser.parse_query().map(|query| query.to_string()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn answers_as_the_generic_dialect() {
        assert_eq!(DIALECT.dialect(), TypeId::of::<GenericDialect>());
        for sql in [
            "SELECT * EXCLUDE (a) FROM t",
            "SELECT count(*) FILTER (WHERE a > 1) FROM t GROUP BY ROLLUP(a)",
            "SELECT {'a': 1}, [1, 2][1], a::INT, E'\\n' FROM t",
            "FROM t",
            "SELECT a FROM t |> WHERE a > 1",
            "SELECT extract('year' FROM ts), trim(both 'x' FROM s) FROM t QUALIFY row_number() OVER (PARTITION BY a ORDER BY b) = 1",
        ] {
            let generic = Parser::parse_sql(&GENERIC, sql).map(|statements| statements[0].to_string());
            assert_eq!(generic, Ok(query(sql)), "{sql}");
        }
    }

    #[test]
    fn distinct_from_binds_tighter_than_and() {
        assert_eq!(
            query("SELECT 1 FROM t WHERE p AND x IS NOT DISTINCT FROM y + 1 OR z IS DISTINCT FROM 2 AND c"),
            "SELECT 1 FROM t WHERE p AND (x IS NOT DISTINCT FROM y + 1) OR (z IS DISTINCT FROM 2) AND c"
        );
        assert_eq!(query("SELECT a IS NOT NULL, b IS TRUE FROM t"), "SELECT a IS NOT NULL, b IS TRUE FROM t");
    }

    #[test]
    fn a_query_stops_before_emit() {
        for sql in ["SELECT 1 EMIT CHANGES", "SELECT 1 FROM t EMIT CHANGES", "SELECT 1 FROM t GROUP BY a EMIT CHANGES"] {
            assert_eq!(query(sql), sql.trim_end_matches(" EMIT CHANGES"));
        }
        assert_eq!(query("SELECT a AS emit FROM t AS watermark"), "SELECT a AS emit FROM t AS watermark");
    }

    #[test]
    fn table_arguments() {
        assert_eq!(
            query("SELECT * FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) AS w"),
            "SELECT * FROM TABLE(TUMBLE(bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) AS w"
        );
        assert_eq!(
            query("SELECT * FROM SESSION(bids PARTITION BY (a, b), ts, INTERVAL '1 minute')"),
            "SELECT * FROM SESSION(partitioned(bids, a, b), ts, INTERVAL '1 minute')"
        );
        assert_eq!(
            query("SELECT * FROM PROCESS(f, TABLE s PARTITION BY a ORDER BY (b DESC, c), n => 1, initial => TABLE t)"),
            "SELECT * FROM PROCESS(f, partitioned(s, a ORDER BY b DESC, c), n => 1, initial => t)"
        );
        assert_eq!(query("SELECT * FROM PROCESS(f, TABLE s ORDER BY b)"), "SELECT * FROM PROCESS(f, partitioned(s ORDER BY b))");
        assert_eq!(query("SELECT array_agg(a ORDER BY b) FROM t"), "SELECT array_agg(a ORDER BY b) FROM t");
        assert_eq!(query("SELECT sum(a) OVER (PARTITION BY b) FROM t"), "SELECT sum(a) OVER (PARTITION BY b) FROM t");
        // sqlparser prints the alias first, where it does not read it.
        assert_eq!(query("SELECT * FROM t FOR SYSTEM_TIME AS OF PROCTIME() AS x"), "SELECT * FROM t AS x FOR SYSTEM_TIME AS OF PROCTIME()");
    }
}
