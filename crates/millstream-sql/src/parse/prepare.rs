//! `PREPARE p AS SELECT .. $1 ..`: any statement, to be carried out with `EXECUTE p(values)`.

use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::error::{Result, SqlError};
use crate::statement::{Prepare, Statement};

/// What statements that have others in them begin with.
pub(super) const STATEMENTS_OF_STATEMENTS: [&str; 3] = ["declare", "explain", "prepare"];

impl StatementParser<'_> {
    pub(super) fn prepare(&mut self) -> Result<Statement> {
        self.expect(&["prepare"])?;
        let name = self.ident()?;
        if self.is_token(&Token::LParen) {
            return Err(SqlError::new("PREPARE with types is not supported")
                .with_hint("Leave them out, or CAST the parameters.")
                .at(self.span()));
        }
        self.expect(&["as"])?;
        if ["prepare", "execute", "deallocate"].iter().any(|word| self.is(word)) {
            return Err(SqlError::new("what is prepared is a statement that is no PREPARE, EXECUTE or DEALLOCATE itself")
                .with_hint("Write for example `PREPARE p AS SELECT * FROM t WHERE id = $1`.")
                .at(self.span()));
        }
        Ok(Statement::Prepare(Prepare { name, statement: Box::new(self.statement()?) }))
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_statement;

    fn canonical(sql: &str) -> String {
        parse_statement(sql).map_or_else(|error| error.message, |statement| statement.canonical_text())
    }

    #[test]
    fn every_statement_can_be_prepared() {
        assert_eq!(canonical("prepare p as select $1 + 1"), "PREPARE p AS SELECT $1 + 1");
        assert_eq!(canonical("PREPARE \"P\" AS subscribe v"), "PREPARE \"P\" AS SUBSCRIBE TO v");
        assert_eq!(canonical("prepare p as insert into t values ($1)"), "PREPARE p AS INSERT INTO t VALUES ($1)");
        assert_eq!(canonical("prepare p as fetch 2 from c"), "PREPARE p AS FETCH 2 FROM c");
        assert_eq!(canonical("prepare p (bigint) as select $1"), "PREPARE with types is not supported");
        for refused in ["prepare q as select 1", "execute p", "deallocate p", "prepare p as ".repeat(10_000).as_str()] {
            assert!(canonical(&format!("prepare p as {refused}")).starts_with("what is prepared is a statement"), "{refused}");
        }
    }
}
