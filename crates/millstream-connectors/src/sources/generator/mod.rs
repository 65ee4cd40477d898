//! `generator`: seeded rows at a given pace, each a function of the seed and its number.
//!
//! ```sql
//! CREATE STREAM readings (n BIGINT METADATA FROM 'n', sensor INTEGER, kind VARCHAR, ts TIMESTAMP, value AS 20 + sin(n),
//!                         WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
//! WITH (connector = 'generator', rows_per_second = '100..10000 over 60s', sensor.kind = 'zipf', sensor.max = '99999',
//!       kind.choices = 'warm,cold', kind.weights = '3,1', ts.disorder = '5 seconds', corrupt_share = '0.1');
//! ```
//! Anything that the rules below do not offer is a computed column over the metadata column `n`. A column's values do not depend
//! on the other columns, nor on where epochs were cut.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `rows_per_second` | 100 | `'100'`, `'100..10000 over 60s'` or `'unlimited'` |
//! | `row_limit` | none | the stream ends after so many rows; under `available` all of them are there at once |
//! | `seed` | 0 | another seed gives other rows |
//! | `corrupt_share` | 0 | share of rows handed out as bad rows |
//! | `<column>.kind` | by type | a rule of the next table |
//! | `<column>.nulls` | 0 | share of NULLs |
//!
//! | kind | types | options, with their defaults |
//! |---|---|---|
//! | `random` | numbers, strings, booleans, dates, timestamps | `min` 0, `max` 999 (fractions 1.0, decimals 100), inclusive; booleans `share` 0.5 |
//! | `sequence` | integers, fractions, strings | `min` 0, `step` 1, `max` none: after it the sequence starts again |
//! | `zipf` | integers, strings | `min` 0, `max` 999, `exponent` 1.0: the smallest value is the most frequent |
//! | `normal` | fractions | `mean` 0, `stddev` 1 |
//! | `choice` | all | `choices`, separated by commas; `weights` equal |
//! | `timestamp` | timestamps, dates | `start` the first start of the stream, `step` by the pace, `disorder` 0: each time is up to so much earlier |
//!
//! Defaults: `timestamp` for timestamps and dates, else `choice` where `choices` are given, else `random`. A string is its rule's integer
//! after `<column>.prefix`, by default the column's name and a hyphen.
//!
//! **Guarantee**: replayable. **Metadata columns**: `n` (BIGINT), the number of the row from 0.

mod alias_table;
mod column;
mod config;
mod source;
#[cfg(test)]
mod tests;

pub use source::GeneratorSource;

use crate::error::Result;
use crate::source::{Source, SourceContext};

/// Builds a generator for the registry.
///
/// # Errors
/// When an option has no legal value or a column a type without a rule.
pub fn create(context: &mut SourceContext) -> Result<Box<dyn Source>> {
    Ok(Box::new(GeneratorSource::new(context)?))
}
