//! JSON lines: one object per line, each field matched to the column of exactly its name.
//!
//! A VARCHAR takes strings, and objects or arrays as their JSON text; lists and structs take arrays and objects. Fields that no column
//! has are ignored and counted, or make their row bad with [`FormatOptions::known_fields_only`]. A column without a field is NULL, unless
//! it is NOT NULL or the row has a field that differs from it in case and underscores only: then the row is bad, because NULL for ever is
//! nobody's intention.

use super::column::{Builder, Column, Token};
use super::csv::same_but_spelling;
use super::json_scan::{Scanner, SyntaxError};
use super::{FormatOptions, Input, Line, Misfit, NESTING_MAX, Rows, TimestampFormat, shorten};
use crate::error::Result;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

/// How many distinct unknown field names are remembered.
const UNKNOWN_NAMES_MAX: usize = 4_096;

/// Decodes JSON lines.
#[derive(Debug)]
pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    fields: FieldNames,
    timestamps: TimestampFormat,
    known_fields_only: bool,
}

/// Fields that no column has.
#[derive(Debug)]
struct Unknown {
    count: u64,
    refused: bool,
}

impl Unknown {
    fn meet(&mut self, name: &str) -> Result<(), Problem> {
        self.count += 1;
        match self.refused {
            true => Err(Problem::Other(format!("the field \"{}\" is no column", shorten(name)))),
            false => Ok(()),
        }
    }
}

/// What a field name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// A column that is handed out, by its place among them.
    Column(usize),
    /// A column of the stream that is not asked for.
    Unused,
    /// No column; the one it may have been meant for.
    Unknown(Option<usize>),
}

/// Finds the slot of a field name; rows mostly have the same fields in the same order.
#[derive(Debug)]
struct FieldNames {
    /// What the n-th field of the last rows was.
    order: Vec<(Box<str>, Slot)>,
    slots: HashMap<Box<str>, Slot>,
    known: usize,
}

impl FieldNames {
    #[inline]
    fn find(&mut self, place: usize, name: &str, columns: &[Column]) -> Slot {
        if let Some((expected, slot)) = self.order.get(place)
            && expected.as_ref() == name
        {
            return *slot;
        }
        let slot = match self.slots.get(name) {
            Some(slot) => *slot,
            None => {
                let slot = Slot::Unknown(columns.iter().position(|column| same_but_spelling(column.field.name(), name)));
                if self.slots.len() < self.known + UNKNOWN_NAMES_MAX {
                    self.slots.insert(name.into(), slot);
                }
                slot
            }
        };
        if place < self.order.len() {
            self.order[place] = (name.into(), slot);
        } else if place == self.order.len() && place < UNKNOWN_NAMES_MAX {
            self.order.push((name.into(), slot));
        }
        slot
    }
}

/// Why a row is bad.
#[derive(Debug)]
enum Problem {
    Syntax(SyntaxError),
    Value { value: String, data_type: DataType, misfit: Misfit, path: Vec<String> },
    Other(String),
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        Problem::Syntax(error)
    }
}

impl Problem {
    fn inside(self, name: &str) -> Self {
        match self {
            Problem::Value { value, data_type, misfit, mut path } => {
                path.insert(0, name.to_string());
                Problem::Value { value, data_type, misfit, path }
            }
            other => other,
        }
    }

    fn reason(self) -> String {
        match self {
            Problem::Syntax(error) => format!("the row is not valid JSON at byte {}: {}", error.at, error.what),
            Problem::Value { value, data_type, misfit, path } => misfit.reason(&path.join("."), &value, &data_type),
            Problem::Other(reason) => reason,
        }
    }
}

impl JsonDecoder {
    pub(crate) fn new(schema: &SchemaRef, selected: &[usize], options: &FormatOptions) -> Result<Self> {
        let columns = selected.iter().map(|index| Column::new(&schema.fields()[*index], "json")).collect::<Result<_>>()?;
        let slots: HashMap<Box<str>, Slot> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| {
                (field.name().as_str().into(), selected.iter().position(|at| *at == index).map_or(Slot::Unused, Slot::Column))
            })
            .collect();
        let fields = FieldNames { order: Vec::new(), known: slots.len(), slots };
        let timestamps = options.timestamp_format.clone();
        Ok(Self { schema: Arc::clone(schema), columns, fields, timestamps, known_fields_only: options.known_fields_only })
    }

    pub(crate) fn decode(&mut self, bytes: &[u8], lines: &[Line], rows: &mut Rows) -> Result<Vec<ArrayRef>> {
        let input = Input::new(bytes, lines);
        let mut unknown = Unknown { count: 0, refused: self.known_fields_only };
        for (index, line) in lines.iter().enumerate() {
            let Some(text) = rows.text(index, line, &input) else {
                for column in &mut self.columns {
                    column.pad(index + 1);
                }
                continue;
            };
            if let Err(problem) = self.row(text, index, &mut unknown) {
                rows.bad(index, line, bytes, problem.reason());
                for column in &mut self.columns {
                    column.pad(index + 1);
                }
            }
        }
        rows.unknown_fields += unknown.count;
        self.columns.iter_mut().map(Column::finish).collect()
    }

    fn row(&mut self, text: &str, row: usize, unknown: &mut Unknown) -> Result<(), Problem> {
        let mut scanner = Scanner::new(text);
        if !scanner.take(b'{') {
            scanner.skip_value(1)?;
            return Err(Problem::Other("the row is not a JSON object".into()));
        }
        let mut filled = 0;
        let mut near_miss: Option<(usize, String)> = None;
        if !scanner.take(b'}') {
            let mut place = 0;
            loop {
                let name = scanner.string()?;
                scanner.expect(b':', "expected a colon")?;
                match self.fields.find(place, &name, &self.columns) {
                    Slot::Column(at) => {
                        let column = &mut self.columns[at];
                        if column.len() > row {
                            return Err(Problem::Other(format!("the field \"{}\" appears twice", shorten(&name))));
                        }
                        push_value(&mut scanner, column, &self.timestamps, 2, unknown).map_err(|problem| problem.inside(&name))?;
                        filled += 1;
                    }
                    Slot::Unused => scanner.skip_value(2)?,
                    Slot::Unknown(near) => {
                        scanner.skip_value(2)?;
                        unknown.meet(&name)?;
                        if let Some(at) = near {
                            near_miss.get_or_insert_with(|| (at, name.to_string()));
                        }
                    }
                }
                place += 1;
                if !scanner.take(b',') {
                    scanner.expect(b'}', "expected a comma or a closing brace")?;
                    break;
                }
            }
        }
        if scanner.peek().is_some() {
            return Err(SyntaxError { at: scanner.position(), what: "text after the end of the object" }.into());
        }
        if filled < self.columns.len() {
            self.fill_missing(row, near_miss)?;
        }
        Ok(())
    }

    fn fill_missing(&mut self, row: usize, near_miss: Option<(usize, String)>) -> Result<(), Problem> {
        for (at, column) in self.columns.iter_mut().enumerate() {
            if column.len() > row {
                continue;
            }
            let name = column.field.name();
            if let Some((_, found)) = near_miss.as_ref().filter(|(near, _)| *near == at) {
                let found = shorten(found);
                return Err(Problem::Other(format!(
                    "column \"{name}\": the row has no such field, but \"{found}\"; names must match exactly"
                )));
            }
            if !column.field.is_nullable() {
                let data_type = super::sql_type(column.field.data_type());
                return Err(Problem::Other(format!(
                    "column \"{name}\": the row has no such field, and the column is {data_type} NOT NULL"
                )));
            }
            column.push_null();
        }
        debug_assert!(self.schema.fields().len() >= self.columns.len());
        Ok(())
    }
}

/// Takes the next value into a column.
#[inline]
fn push_value(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    timestamps: &TimestampFormat,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<(), Problem> {
    let misfit = |column: &Column, value: &str, misfit| {
        Err(Problem::Value { value: value.to_string(), data_type: column.field.data_type().clone(), misfit, path: Vec::new() })
    };
    match scanner.peek() {
        Some(b'"') => {
            let text = scanner.string()?;
            column.push(Token::JsonString, &text, timestamps).or_else(|problem| misfit(column, &text, problem))
        }
        Some(b'-' | b'0'..=b'9') => {
            let text = scanner.number()?;
            column.push(Token::JsonNumber, text, timestamps).or_else(|problem| misfit(column, text, problem))
        }
        Some(b'{' | b'[') => {
            if depth > NESTING_MAX {
                return Err(SyntaxError { at: scanner.position(), what: "nested more than 64 deep" }.into());
            }
            let is_object = scanner.peek() == Some(b'{');
            match (&mut column.builder, is_object) {
                (Builder::Struct { .. }, true) => push_struct(scanner, column, timestamps, depth, unknown),
                (Builder::List { .. }, false) => push_list(scanner, column, timestamps, depth, unknown),
                _ => {
                    let start = scanner.position();
                    scanner.skip_value(depth)?;
                    let raw = scanner.slice(start, scanner.position());
                    match column.builder {
                        Builder::TextView(_) | Builder::Text(_) => {
                            column.push(Token::JsonString, raw, timestamps).or_else(|problem| misfit(column, raw, problem))
                        }
                        _ => misfit(column, raw, Misfit::Form),
                    }
                }
            }
        }
        _ => match scanner.literal()? {
            "null" if column.field.is_nullable() => {
                column.push_null();
                Ok(())
            }
            "null" => misfit(column, "null", Misfit::Null),
            text => column.push(Token::JsonBoolean, text, timestamps).or_else(|problem| misfit(column, text, problem)),
        },
    }
}

fn push_list(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    timestamps: &TimestampFormat,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<(), Problem> {
    scanner.expect(b'[', "expected a list")?;
    let Builder::List { offsets, nulls, child, .. } = &mut column.builder else { return Ok(()) };
    if !scanner.take(b']') {
        loop {
            push_value(scanner, child, timestamps, depth + 1, unknown).map_err(|problem| problem.inside("[]"))?;
            if !scanner.take(b',') {
                scanner.expect(b']', "expected a comma or a closing bracket")?;
                break;
            }
        }
    }
    let Ok(end) = i32::try_from(child.len()) else {
        return Err(Problem::Other(format!("column \"{}\": the batch holds more than 2^31 list elements", column.field.name())));
    };
    offsets.push(end);
    nulls.append_non_null();
    Ok(())
}

fn push_struct(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    timestamps: &TimestampFormat,
    depth: usize,
    unknown: &mut Unknown,
) -> Result<(), Problem> {
    scanner.expect(b'{', "expected an object")?;
    let Builder::Struct { children, nulls, rows, .. } = &mut column.builder else { return Ok(()) };
    if !scanner.take(b'}') {
        loop {
            let name = scanner.string()?;
            scanner.expect(b':', "expected a colon")?;
            match children.iter_mut().find(|child| child.field.name().as_str() == name) {
                Some(child) if child.len() > *rows => {
                    return Err(Problem::Other(format!("the field \"{}\" appears twice", shorten(&name))));
                }
                Some(child) => {
                    push_value(scanner, child, timestamps, depth + 1, unknown).map_err(|problem| problem.inside(&name))?;
                }
                None => {
                    scanner.skip_value(depth + 1)?;
                    unknown.meet(&name)?;
                }
            }
            if !scanner.take(b',') {
                scanner.expect(b'}', "expected a comma or a closing brace")?;
                break;
            }
        }
    }
    for child in children.iter_mut().filter(|child| child.len() == *rows) {
        if !child.field.is_nullable() {
            let (data_type, path) = (child.field.data_type().clone(), vec![child.field.name().clone()]);
            return Err(Problem::Value { value: "null".into(), data_type, misfit: Misfit::Null, path });
        }
        child.push_null();
    }
    nulls.append_non_null();
    *rows += 1;
    Ok(())
}
