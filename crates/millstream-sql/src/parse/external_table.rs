//! `CREATE EXTERNAL TABLE`: DataFusion's statement, and `UNBOUNDED`, which makes it a stream.

use datafusion::sql::parser::{CreateExternalTable as DfCreateExternalTable, Statement as DfStatement};
use sqlparser::ast::{self, ColumnOption, Ident, TableConstraint, Value};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{StatementParser, normalize_type};
use crate::error::{Result, SqlError};
use crate::statement::{ColumnDef, ColumnKind, CreateExternalTable, CreateStream, OptionList, Statement};
use crate::tokens::is_word;

impl StatementParser<'_> {
    /// The statement that starts with the token at `start`.
    pub(super) fn create_external_table(&mut self, start: usize) -> Result<Statement> {
        let tokens = without_equals_in_options(&self.tokens[start..]);
        let DfStatement::CreateExternalTable(mut definition) =
            self.datafusion_parse(tokens, &["TABLE", "STORED", "LOCATION", "OPTIONS"])?
        else {
            return Err(SqlError::new("expected CREATE EXTERNAL TABLE"));
        };
        for column in &mut definition.columns {
            normalize_type(&mut column.data_type);
        }
        for (key, _) in &mut definition.options {
            *key = key.to_lowercase();
        }
        let options = definition.options.iter().map(|(key, value)| (key.clone(), value_text(value))).collect();
        if definition.unbounded {
            unbounded(definition, options)
        } else {
            Ok(Statement::CreateExternalTable(CreateExternalTable { definition, options }))
        }
    }
}

/// DataFusion writes `OPTIONS ('key' 'value')`; we also take `key = 'value'`.
fn without_equals_in_options(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut depth = 0_usize;
    let mut in_options = false;
    let mut out = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => {
                in_options |= depth == 0 && index > 0 && is_word(tokens.get(index - 1), "options");
                depth += 1;
            }
            Token::RParen => {
                depth = depth.saturating_sub(1);
                in_options &= depth > 0;
            }
            Token::Eq if in_options => continue,
            _ => {}
        }
        out.push(token.clone());
    }
    out
}

fn value_text(value: &Value) -> String {
    match value {
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `CREATE UNBOUNDED EXTERNAL TABLE` as a stream over files.
fn unbounded(definition: DfCreateExternalTable, options: OptionList) -> Result<Statement> {
    let DfCreateExternalTable { name, columns, file_type, locations, or_replace, if_not_exists, constraints, .. } = definition;
    let [path] = locations.as_slice() else {
        return Err(SqlError::new(format!("stream {name} has {} locations", locations.len()))
            .with_hint("A stream reads one directory, glob or prefix; give several as one glob."));
    };
    let mut primary_key: Vec<Ident> = Vec::new();
    for constraint in constraints {
        let TableConstraint::PrimaryKey(key) = constraint else {
            return Err(SqlError::new(format!("the constraint \"{constraint}\" is not supported"))
                .with_hint("Constraints are NOT NULL and PRIMARY KEY (columns)."));
        };
        primary_key.extend(key.columns.iter().filter_map(|column| match &column.column.expr {
            ast::Expr::Identifier(ident) => Some(ident.clone()),
            _ => None,
        }));
    }
    let mut stream_columns = Vec::with_capacity(columns.len());
    for column in columns {
        let not_null = column.options.iter().any(|option| option.option == ColumnOption::NotNull);
        if column.options.iter().any(|option| matches!(option.option, ColumnOption::PrimaryKey(_))) {
            primary_key.push(column.name.clone());
        }
        stream_columns.push(ColumnDef { name: column.name, data_type: Some(column.data_type), not_null, kind: ColumnKind::Physical });
    }
    let mut all = vec![
        ("connector".to_owned(), "files".to_owned()),
        ("path".to_owned(), path.clone()),
        ("format".to_owned(), file_type.to_lowercase()),
    ];
    all.extend(options);
    Ok(Statement::CreateStream(CreateStream {
        or_replace,
        if_not_exists,
        name,
        columns: stream_columns,
        watermark: None,
        primary_key,
        append_only: false,
        options: all,
        as_select: None,
    }))
}
