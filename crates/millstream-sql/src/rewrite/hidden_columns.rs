//! The hidden columns `_epoch` and `_epoch_time` of streams.
//!
//! A stream shows them only to a query that names them. Then they would also come with `*`, so `SELECT *` becomes
//! `SELECT * EXCLUDE (_epoch, _epoch_time)` where it reads a stream. This runs before the rewrites whose own `*` must pass
//! the columns on.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    ExcludeSelectItem, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, WildcardAdditionalOptions,
};
use sqlparser::tokenizer::{Token, Tokenizer};

use super::window_tvf::call_of;
use super::{last_ident, last_word, qualifier, visit_step};
use crate::dialect::DIALECT;
use crate::error::{Result, SqlError};
use crate::tokens::{EPOCH_BETWEEN, EPOCH_TIME_BETWEEN};
use crate::visit::{WalkMut, walk_mut};

/// The hidden columns, in the order they have in a stream's schema.
pub const HIDDEN_COLUMNS: [&str; 2] = ["_epoch", "_epoch_time"];

/// True if `query` names a hidden column anywhere, or takes a slice of epochs.
pub fn mentions_hidden(query: &Query) -> bool {
    // A name can stand in many places of the AST (expressions, USING, aliases); the text has them all.
    let text = query.to_string();
    let tokens = Tokenizer::new(&DIALECT, &text).tokenize().unwrap_or_default();
    tokens.iter().any(|token| match token {
        Token::Word(word) => {
            HIDDEN_COLUMNS.contains(&word.value.as_str()) || word.value == EPOCH_BETWEEN || word.value == EPOCH_TIME_BETWEEN
        }
        _ => false,
    })
}

/// Excludes the hidden columns from every `*` and `t.*` that reads a stream.
///
/// # Errors
/// A `*` over a join that cannot be written without the hidden columns (NATURAL, or modifiers beside EXCLUDE).
pub fn exclude_hidden_from_wildcards(query: &mut Query, is_stream: &dyn Fn(&ObjectName) -> bool) -> Result<()> {
    let mut excluder = Excluder { is_stream, scopes: vec![HashSet::new()], of_cte: HashMap::new(), result: Ok(()) };
    let _ = walk_mut(query, &mut excluder);
    excluder.result
}

struct Excluder<'a> {
    is_stream: &'a dyn Fn(&ObjectName) -> bool,
    /// The names of common table expressions in scope, which hide streams of the same name.
    scopes: Vec<HashSet<String>>,
    /// The scope of the query of a common table expression: the ones before it. By address, which does not change while the
    /// tree is visited.
    of_cte: HashMap<*const Query, HashSet<String>>,
    /// What has come of the walk so far.
    result: Result<()>,
}

impl WalkMut for Excluder<'_> {
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let address: *const Query = query;
        let mut scope = self.of_cte.remove(&address).or_else(|| self.scopes.last().cloned()).unwrap_or_default();
        if let Some(with) = &query.with {
            let names: Vec<String> = with.cte_tables.iter().map(|cte| cte.alias.name.value.to_lowercase()).collect();
            for (index, cte) in with.cte_tables.iter().enumerate() {
                let visible = if with.recursive { names.len() } else { index };
                let address: *const Query = &*cte.query;
                self.of_cte.insert(address, scope.iter().chain(&names[..visible]).cloned().collect());
            }
            scope.extend(names);
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let excluded = self.exclude(select);
        visit_step(&mut self.result, excluded)
    }
}

/// A relation after FROM.
pub(super) struct Source<T> {
    pub(super) qualifier: Option<Ident>,
    /// What the caller knows about it.
    pub(super) fact: T,
    /// The columns of USING that join it to those before it.
    pub(super) using: Vec<Ident>,
}

/// The relations after FROM whose columns `*` gives, in its order.
pub(super) struct Sources<'f, T> {
    pub(super) list: Vec<Source<T>>,
    /// One of the joins is NATURAL.
    pub(super) natural: bool,
    fact: &'f dyn Fn(&TableFactor) -> T,
}

impl Excluder<'_> {
    fn exclude(&self, select: &mut Select) -> Result<()> {
        let has_hidden = |factor: &TableFactor| self.has_hidden(factor);
        let sources = Sources::of(&select.from, &has_hidden);
        if !sources.list.iter().any(|source| source.fact) {
            return Ok(());
        }
        if select.flavor == SelectFlavor::FromFirstNoSelect && select.projection.is_empty() {
            select.flavor = SelectFlavor::Standard;
            select.projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
        }
        let mut projection = Vec::with_capacity(select.projection.len());
        for mut item in std::mem::take(&mut select.projection) {
            match &mut item {
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let word = last_word(name);
                    let is_hidden =
                        |source: &Source<bool>| source.fact && source.qualifier.as_ref().map(|ident| ident.value.to_lowercase()) == word;
                    if sources.list.iter().any(is_hidden) {
                        add_exclusions(options, &hidden());
                    }
                    projection.push(item);
                }
                SelectItem::Wildcard(options) if sources.list.len() == 1 => {
                    add_exclusions(options, &hidden());
                    projection.push(item);
                }
                SelectItem::Wildcard(options) => {
                    let span = options.wildcard_token.0.span;
                    let excluded = |has_hidden: &bool| if *has_hidden { hidden() } else { vec![] };
                    let Some(items) = expanded(options, &sources, excluded) else {
                        return Err(SqlError::new("* over this join cannot be told apart from the hidden columns")
                            .with_hint("Name the columns, or give every relation an alias and write `a.*, b.*`.")
                            .at(span));
                    };
                    projection.extend(items);
                }
                _ => projection.push(item),
            }
        }
        select.projection = projection;
        Ok(())
    }

    fn has_hidden(&self, factor: &TableFactor) -> bool {
        match (factor, call_of(factor)) {
            (_, Some(call)) => call.relation_name().is_some_and(|name| self.is_visible_stream(&name)),
            (TableFactor::Table { name, args: None, .. }, None) => self.is_visible_stream(name),
            _ => false,
        }
    }

    fn is_visible_stream(&self, name: &ObjectName) -> bool {
        let is_cte = name.0.len() == 1 && last_word(name).is_some_and(|word| self.scopes.last().is_some_and(|scope| scope.contains(&word)));
        !is_cte && (self.is_stream)(name)
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::AsOf { constraint, .. } => Some(constraint),
        _ => None,
    }
}

fn hidden() -> Vec<Ident> {
    HIDDEN_COLUMNS.iter().map(|name| Ident::new(*name)).collect()
}

/// `*` over several relations, as `a.* EXCLUDE (..), b.* EXCLUDE (..)`: one exclusion for all would be ambiguous. `None` where it cannot
/// be written so: a relation without a name, NATURAL, modifiers.
pub(super) fn expanded<T>(
    options: &WildcardAdditionalOptions,
    sources: &Sources<'_, T>,
    excluded: impl Fn(&T) -> Vec<Ident>,
) -> Option<Vec<SelectItem>> {
    // The place of the asterisk makes no difference.
    let has_modifiers = *options != WildcardAdditionalOptions::default();
    if sources.natural || has_modifiers {
        return None;
    }
    let item = |source: &Source<T>| {
        let mut options = WildcardAdditionalOptions::default();
        let exclusions: Vec<Ident> = source.using.iter().cloned().chain(excluded(&source.fact)).collect();
        add_exclusions(&mut options, &exclusions);
        let qualifier = source.qualifier.clone()?;
        Some(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(qualifier.into()), options))
    };
    sources.list.iter().map(item).collect()
}

impl<'f, T> Sources<'f, T> {
    /// The relations of a FROM clause, each with a fact about it.
    pub(super) fn of(from: &[TableWithJoins], fact: &'f dyn Fn(&TableFactor) -> T) -> Self {
        let mut sources = Sources { list: Vec::new(), natural: false, fact };
        from.iter().for_each(|from| sources.collect(from, Vec::new()));
        sources
    }

    fn collect(&mut self, from: &TableWithJoins, using: Vec<Ident>) {
        self.collect_factor(&from.relation, using);
        for join in &from.joins {
            let using = match constraint(&join.join_operator) {
                Some(JoinConstraint::Using(names)) => names.iter().filter_map(last_ident).cloned().collect(),
                Some(JoinConstraint::Natural) => {
                    self.natural = true;
                    Vec::new()
                }
                _ => Vec::new(),
            };
            let semi = matches!(
                join.join_operator,
                JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_)
            );
            // A semi join gives no columns of its right side.
            if !semi {
                self.collect_factor(&join.relation, using);
            }
        }
    }

    fn collect_factor(&mut self, factor: &TableFactor, using: Vec<Ident>) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => self.collect(table_with_joins, using),
            _ => self.list.push(Source { qualifier: qualifier(factor), fact: (self.fact)(factor), using }),
        }
    }
}

/// Adds `columns` to the EXCLUDE of a wildcard; those excluded already stay once.
pub(super) fn add_exclusions(options: &mut WildcardAdditionalOptions, columns: &[Ident]) {
    let mut excluded = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    for column in columns {
        let in_except = options.opt_except.as_ref().is_some_and(|except| {
            except.first_element.value == column.value || except.additional_elements.iter().any(|other| other.value == column.value)
        });
        if !in_except && !excluded.iter().any(|name| last_ident(name).is_some_and(|other| other.value == column.value)) {
            excluded.push(column.clone().into());
        }
    }
    if !excluded.is_empty() {
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(excluded));
    }
}
