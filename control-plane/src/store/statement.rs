//! Statements on their way to Postgres: timed, and told of where they take too long (O5).
//!
//! [`Session`] has the driver's own calls; a statement that took `database.slow_statement_ms` or longer,
//! however it ended, is counted and logged with its text, in which literals are replaced. Values are bound
//! and never in the text. Where the request that it works for is traced, it is a span of that (O4).

use std::time::{Duration, Instant, SystemTime};

use bytes::Buf;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Client, CopyInSink, Error, Row, RowStream, SimpleQueryMessage, Statement, ToStatement};
use weir_trace::{Current, KeyValue};

use crate::telemetry::Metrics;

/// Bytes of a statement that the log shows.
const MAX_TEXT: usize = 2_000;

type Values<'v> = &'v [&'v (dyn ToSql + Sync)];
type TypedValues<'v> = &'v [(&'v (dyn ToSql + Sync), Type)];

/// A statement that a connection has prepared, with its text.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) statement: Statement,
    pub(super) sql: &'static str,
}

/// What can be run: text, or what was prepared from it.
pub trait Sql {
    type Runs: ?Sized + ToStatement;
    fn runs(&self) -> &Self::Runs;
    fn text(&self) -> &str;
}

impl Sql for str {
    type Runs = Self;
    fn runs(&self) -> &Self {
        self
    }
    fn text(&self) -> &str {
        self
    }
}

impl Sql for String {
    type Runs = str;
    fn runs(&self) -> &str {
        self
    }
    fn text(&self) -> &str {
        self
    }
}

impl Sql for Prepared {
    type Runs = Statement;
    fn runs(&self) -> &Statement {
        &self.statement
    }
    fn text(&self) -> &str {
        self.sql
    }
}

/// What a lease's statements have in common.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) metrics: &'a Metrics,
    pub(super) class: &'static str,
    pub(super) operation: &'static str,
    pub(super) slow: Duration,
}

/// Looks at the clock when it is dropped: also where nobody waits for the statement any more.
struct Watch<'w> {
    session: Session<'w>,
    text: &'w str,
    started: Instant,
    /// In a box: statements are in every future, and few are traced.
    span: Option<Box<Span>>,
}

/// A statement whose caller is recorded.
struct Span {
    caller: Current,
    started: SystemTime,
    failure: Option<String>,
}

impl Session<'_> {
    fn watch<'w>(&'w self, text: &'w str) -> Watch<'w> {
        // Until it is told otherwise, nobody waited for the end.
        let failure = || Some("cancelled".to_owned());
        let begin = |caller| Box::new(Span { caller, started: SystemTime::now(), failure: failure() });
        let span = weir_trace::current().map(begin);
        Watch { session: *self, text, started: Instant::now(), span }
    }

    /// Takes as long as a statement where a table is locked: Postgres looks at it then.
    pub(super) async fn prepare(self, sql: &'static str) -> Result<Prepared, Error> {
        let watch = self.watch(sql);
        Ok(Prepared { statement: watch.told(self.client.prepare(sql).await)?, sql })
    }

    pub async fn query<S: ?Sized + Sql>(self, sql: &S, values: Values<'_>) -> Result<Vec<Row>, Error> {
        let watch = self.watch(sql.text());
        watch.told(self.client.query(sql.runs(), values).await)
    }

    pub async fn query_one<S: ?Sized + Sql>(self, sql: &S, values: Values<'_>) -> Result<Row, Error> {
        let watch = self.watch(sql.text());
        watch.told(self.client.query_one(sql.runs(), values).await)
    }

    pub async fn query_opt<S: ?Sized + Sql>(self, sql: &S, values: Values<'_>) -> Result<Option<Row>, Error> {
        let watch = self.watch(sql.text());
        watch.told(self.client.query_opt(sql.runs(), values).await)
    }

    pub async fn execute<S: ?Sized + Sql>(self, sql: &S, values: Values<'_>) -> Result<u64, Error> {
        let watch = self.watch(sql.text());
        watch.told(self.client.execute(sql.runs(), values).await)
    }

    pub async fn query_typed(self, sql: &str, values: TypedValues<'_>) -> Result<Vec<Row>, Error> {
        let watch = self.watch(sql);
        watch.told(self.client.query_typed(sql, values).await)
    }

    pub async fn query_typed_one(self, sql: &str, values: TypedValues<'_>) -> Result<Row, Error> {
        let watch = self.watch(sql);
        watch.told(self.client.query_typed_one(sql, values).await)
    }

    pub async fn batch_execute(self, sql: &str) -> Result<(), Error> {
        let watch = self.watch(sql);
        watch.told(self.client.batch_execute(sql).await)
    }

    /// Statements in one message, which are one transaction where none is open.
    pub async fn simple_query(self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let watch = self.watch(sql);
        watch.told(self.client.simple_query(sql).await)
    }

    /// Until the first row is on its way: how long a stream takes is up to who reads it.
    pub async fn query_typed_raw<P, I>(self, sql: &str, values: I) -> Result<RowStream, Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = (P, Type)>,
    {
        let watch = self.watch(sql);
        watch.told(self.client.query_typed_raw(sql, values).await)
    }

    /// Until Postgres is ready for the rows.
    pub async fn copy_in<U: Buf + Send + 'static>(self, sql: &str) -> Result<CopyInSink<U>, Error> {
        let watch = self.watch(sql);
        watch.told(self.client.copy_in(sql).await)
    }
}

impl Watch<'_> {
    /// It is over.
    fn told<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Some(span) = &mut self.span {
            // Its code: the text of an error may have values in it.
            let code = |error: &Error| error.code().map_or("connection", SqlState::code).to_owned();
            span.failure = result.as_ref().err().map(code);
        }
        result
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let Session { metrics, class, operation, slow, .. } = self.session;
        if let Some(span) = self.span.take() {
            let Span { caller, started, failure } = *span;
            let attributes = vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.query.text", normalised(self.text)),
                KeyValue::new("weir.class", class),
            ];
            caller.called(operation, started, attributes, failure);
        }
        if elapsed < slow {
            return;
        }
        metrics.slow_statements.with_label_values(&[class]).inc();
        let duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        let (statement, trace_id) = (normalised(self.text), weir_trace::trace_id());
        tracing::warn!(class, operation, duration_ms, statement, trace_id, "slow statement");
    }
}

/// On one line, without comments, literals as `?`: the same statement reads the same each time, and no value
/// is shown.
fn normalised(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len().min(MAX_TEXT));
    for line in sql.lines() {
        let mut chars = line.split("--").next().unwrap_or_default().trim().chars().peekable();
        if !text.is_empty() {
            text.push(' ');
        }
        let mut before = ' ';
        while let Some(char) = chars.next() {
            match char {
                '\'' => {
                    // A doubled quote begins the next literal at once, which reads as one.
                    chars.by_ref().find(|char| *char == '\'');
                    if before != '?' {
                        text.push('?');
                    }
                    before = '?';
                    continue;
                }
                // A number that is neither part of a name nor of a parameter.
                '0'..='9' if !before.is_ascii_alphanumeric() && !matches!(before, '_' | '$') => {
                    while chars.next_if(|char| char.is_ascii_digit() || *char == '.').is_some() {}
                    text.push('?');
                }
                ' ' if before == ' ' => {}
                other => text.push(other),
            }
            before = char;
        }
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.push('…');
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o5_a_statement_reads_the_same_whatever_its_values() {
        let sql = "SELECT  a1, $2 -- why\n  FROM flow_20260131\n WHERE b = 'it''s' AND c > 10.5 LIMIT 100";
        assert_eq!(normalised(sql), "SELECT a1, $2 FROM flow_20260131 WHERE b = ? AND c > ? LIMIT ?");
        assert!(normalised(&"x é ".repeat(2_000)).len() <= MAX_TEXT + '…'.len_utf8());
    }
}
