//! Cursors: `DECLARE c CURSOR FOR ..`, `FETCH 10 FROM c WITH (timeout = '1s')`, `MOVE 10 FROM c`, `CLOSE c`.

use millstream_types::options::parse_duration;
use sqlparser::tokenizer::Token;

use super::StatementParser;
use super::prepare::STATEMENTS_OF_STATEMENTS;
use crate::error::{Result, SqlError};
use crate::statement::{DeclareCursor, Fetch, Statement};

impl StatementParser<'_> {
    pub(super) fn declare_cursor(&mut self) -> Result<Statement> {
        self.expect(&["declare"])?;
        let name = self.ident()?;
        loop {
            let span = self.span();
            if self.eat(&["binary"]) {
                return Err(SqlError::new("binary cursors are not supported")
                    .with_hint("Leave out BINARY; clients of the extended protocol choose the format themselves.")
                    .at(span));
            }
            if self.eat(&["scroll"]) {
                return Err(SqlError::new("cursors go forward only").with_hint("Leave out SCROLL.").at(span));
            }
            if !(self.eat(&["insensitive"]) || self.eat(&["asensitive"]) || self.eat(&["no", "scroll"])) {
                break;
            }
        }
        self.expect(&["cursor"])?;
        let hold = self.eat(&["with", "hold"]);
        if !hold {
            self.eat(&["without", "hold"]);
        }
        self.expect(&["for"])?;
        let span = self.span();
        // Looked at before it is read: statements that begin others could stand in each other as deep as they are many.
        if !STATEMENTS_OF_STATEMENTS.iter().any(|word| self.is(word))
            && let statement @ (Statement::Query(_) | Statement::Subscribe(_)) = self.statement()?
        {
            return Ok(Statement::DeclareCursor(DeclareCursor { name, hold, statement: Box::new(statement) }));
        }
        Err(SqlError::new("a cursor goes over a query or a subscription")
            .with_hint("Write `DECLARE c CURSOR FOR SELECT ...` or `DECLARE c CURSOR FOR SUBSCRIBE TO v`.")
            .at(span))
    }

    pub(super) fn fetch(&mut self) -> Result<Statement> {
        let moves = self.eat(&["move"]);
        if !moves {
            self.expect(&["fetch"])?;
        }
        let span = self.span();
        for backward in ["backward", "prior", "first", "last", "absolute", "relative"] {
            if self.eat(&[backward]) {
                return Err(SqlError::new("cursors go forward only").with_hint("Write `FETCH n FROM c` or `MOVE n FROM c`.").at(span));
            }
        }
        self.eat(&["forward"]);
        let count = if self.eat(&["all"]) {
            None
        } else if matches!(self.peek().map(|token| &token.token), Some(Token::Number(..))) {
            Some(self.number()?)
        } else {
            // `FETCH c` is one row too.
            self.eat(&["next"]);
            Some(1)
        };
        let _ = self.eat(&["from"]) || self.eat(&["in"]);
        let cursor = self.ident()?;
        let mut timeout = None;
        let span = self.span();
        for (key, value) in self.with_options()? {
            timeout = match (key.as_str(), parse_duration(&value)) {
                ("timeout", Some(duration)) => Some(duration),
                ("timeout", None) => {
                    return Err(SqlError::new(format!("timeout is '{value}', not a duration"))
                        .with_hint("Write for example WITH (timeout = '1s').")
                        .at(span));
                }
                _ => {
                    return Err(SqlError::new(format!("{} has no option \"{key}\"", if moves { "MOVE" } else { "FETCH" }))
                        .with_hint("It takes timeout.")
                        .at(span));
                }
            };
        }
        Ok(Statement::Fetch(Fetch { cursor, count, timeout, moves }))
    }

    pub(super) fn close_cursor(&mut self) -> Result<Statement> {
        self.expect(&["close"])?;
        if self.eat(&["all"]) {
            return Ok(Statement::CloseCursor(None));
        }
        Ok(Statement::CloseCursor(Some(self.ident()?)))
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_statement;

    fn canonical(sql: &str) -> String {
        parse_statement(sql).map_or_else(|error| error.message, |statement| statement.canonical_text())
    }

    #[test]
    fn cursors_are_read_and_written() {
        assert_eq!(canonical("declare c no scroll cursor for select 1"), "DECLARE c CURSOR FOR SELECT 1");
        assert_eq!(canonical("declare c cursor with hold for subscribe v"), "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE TO v");
        assert_eq!(canonical("fetch forward 10 from c with (timeout = '1s')"), "FETCH 10 FROM c WITH (timeout = '1s')");
        assert_eq!(canonical("fetch all in c"), "FETCH ALL FROM c");
        assert_eq!(canonical("fetch next from c"), "FETCH 1 FROM c");
        assert_eq!(canonical("fetch c"), "FETCH 1 FROM c");
        assert_eq!(canonical("move forward all from c"), "MOVE ALL FROM c");
        assert_eq!(canonical("move 3 in c with (timeout = '1s')"), "MOVE 3 FROM c WITH (timeout = '1s')");
        assert_eq!(canonical("close all"), "CLOSE ALL");
        assert_eq!(canonical("fetch prior from c"), "cursors go forward only");
        for other in ["drop table t", "explain select 1", "declare c cursor for ".repeat(10_000).as_str()] {
            assert_eq!(canonical(&format!("declare c cursor for {other}")), "a cursor goes over a query or a subscription");
        }
    }

    #[test]
    fn copies_from_the_client_take_options_in_both_forms() {
        let copied = "COPY t (a, b) FROM STDIN WITH (format = 'csv', header = 'true', delimiter = ';')";
        assert_eq!(canonical("copy t (a, b) from stdin with (format csv, header, delimiter ';')"), copied);
        assert_eq!(canonical("copy t(a,b) from stdin csv header delimiter as ';'"), copied);
        assert_eq!(canonical("copy t (a) to stdout"), "COPY (SELECT a FROM t) TO STDOUT");
        assert_eq!(canonical("copy t from 'x.csv'"), "COPY takes rows FROM STDIN only, which a client sends");
    }
}
