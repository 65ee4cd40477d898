//! What reads bytes of strangers, as one function per decoder: each must return, whatever it is given.
//!
//! The targets under `fuzz/` call these with cargo-fuzz; the test here calls them some thousands of times with samples that are changed at
//! random, from a fixed seed.
//!
//! | function | decoder |
//! | --- | --- |
//! | [`pg_messages`] | the first message of a connection, and those that follow |
//! | [`pg_parameter`] | values of parameters, text and binary |
//! | [`copy_rows`] | rows of COPY FROM STDIN in the three formats |
//! | [`http_rows`] | bodies with rows: NDJSON, JSON, CSV, Arrow |
//! | [`scram`] | both messages of a SCRAM exchange |
//! | [`statement`] | the text of a statement, as the PostgreSQL protocol looks at it |

use crate::http::ingest;
use crate::pg::copy::input::rows_of;
use crate::pg::values::parameter::literal;
use crate::pg::values::types::{data_type, parameter_type};
use crate::pg::wire::{take_message, take_opening};
use crate::scram::Exchange;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::{Bytes, BytesMut};
use millstream_engine::access::Verifier;
use millstream_sql::statement::CopyFrom;
use postgres_types::Type;
use std::sync::{Arc, LazyLock};

/// Bytes of a message at most.
const MESSAGE_BYTES: usize = 1 << 20;

/// The types of parameters that values are read as.
const KINDS: [Type; 20] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::BYTEA,
    Type::DATE,
    Type::TIME,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INTERVAL,
    Type::UUID,
    Type::JSONB,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::NUMERIC_ARRAY,
    Type::UNKNOWN,
];

/// A relation with a column of each kind that is decoded in its own way.
static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let columns = [
        ("word", DataType::Utf8),
        ("n", DataType::Int64),
        ("price", DataType::Decimal128(10, 2)),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("raw", DataType::Binary),
        ("flags", DataType::new_list(DataType::Boolean, true)),
    ];
    Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
});

/// The first byte, which chooses, and the rest.
fn choice(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}

/// Reads a connection: its first message, then as many as there are.
pub fn pg_messages(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    if !matches!(take_opening(&mut buffer), Ok(Some(_))) {
        buffer = BytesMut::from(bytes);
    }
    while let Ok(Some(_)) = take_message(&mut buffer, MESSAGE_BYTES) {}
}

/// Reads the value of a parameter.
pub fn pg_parameter(bytes: &[u8]) {
    let (choice, value) = choice(bytes);
    let kind = &KINDS[choice / 2 % KINDS.len()];
    let wanted = parameter_type(kind).unwrap_or(DataType::Decimal128(38, 10));
    if let Ok(literal) = literal(Some(&Bytes::copy_from_slice(value)), choice % 2 == 1, kind, &wanted) {
        // It is one literal: nothing of the value is grammar.
        assert!(millstream_sql::parse_expression(&literal.to_string()).is_ok(), "{literal}");
    }
    let _ = data_type(&wanted);
}

/// Reads the rows of a COPY, whole and in pieces: the same rows, or both are refused.
pub fn copy_rows(bytes: &[u8]) {
    let (choice, rows) = choice(bytes);
    let options: &[(&str, &str)] = match choice % 4 {
        0 => &[],
        1 => &[("format", "csv")],
        2 => &[("format", "csv"), ("header", "true"), ("quote", "'"), ("escape", "\\")],
        _ => &[("format", "binary")],
    };
    let options = options.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    let copy = CopyFrom { target: sqlparser::ast::ObjectName::from(vec!["t".into()]), columns: vec![], options };
    let whole = rows_of(&COLUMNS, &copy, rows, rows.len());
    let pieces = rows_of(&COLUMNS, &copy, rows, choice / 4 + 1);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "rows must not depend on how they are cut"),
        (whole, pieces) => assert_eq!(whole.is_ok(), pieces.is_ok(), "rows must not depend on how they are cut"),
    }
}

/// Reads a body with rows.
pub fn http_rows(bytes: &[u8]) {
    let (choice, body) = choice(bytes);
    let _ = match choice % 4 {
        0 => ingest::ndjson(body, &COLUMNS),
        1 => ingest::json_array(body, &COLUMNS),
        2 => ingest::csv(body, &COLUMNS),
        _ => ingest::arrow_stream(Bytes::copy_from_slice(body), &COLUMNS),
    };
}

/// Reads the two messages of a SCRAM exchange, which a zero byte parts.
pub fn scram(bytes: &[u8]) {
    static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::of("pencil"));
    let (first, last) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    if let Ok((exchange, _)) = Exchange::begin(first, VERIFIER.clone()) {
        assert!(exchange.finish(last.get(1..).unwrap_or_default()).is_err(), "nobody knows the server's nonce");
    }
    let _ = std::str::from_utf8(bytes).map(Verifier::parse);
}

/// Reads the text of statements.
pub fn statement(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for part in millstream_sql::split::split(&text).statements {
        if millstream_sql::depth::check_text(part.text).is_ok()
            && let Ok(statement) = millstream_sql::parse_statement(part.text)
        {
            let _ = statement.parameter_count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::copy::SIGNATURE;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    /// Changed samples of each decoder.
    const CASES: usize = 3_000;
    /// Bytes that mean something somewhere.
    const TELLING: [u8; 16] = [0, 1, 3, 4, 0x7f, 0x80, 0xff, b'"', b'\'', b'\\', b',', b'\n', b'{', b'}', b'[', b'\t'];

    /// A sample with some bytes changed, doubled, left out or cut off.
    fn changed(random: &mut SmallRng, samples: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = samples[random.random_range(0..samples.len())].clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..6) {
                0 if at < bytes.len() => bytes[at] = random.random(),
                1 if at < bytes.len() => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
                2 => bytes.insert(at, TELLING[random.random_range(0..TELLING.len())]),
                3 if at < bytes.len() => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let other = &samples[random.random_range(0..samples.len())];
                    let from = random.random_range(0..=other.len());
                    bytes.splice(at..at, other[from..].iter().take(20).copied());
                }
            }
        }
        bytes
    }

    fn with(choice: u8, bytes: &[u8]) -> Vec<u8> {
        [&[choice], bytes].concat()
    }

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((i32::try_from(body.len()).unwrap() + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn survives(seed: u64, read: fn(&[u8]), samples: &[Vec<u8>]) {
        samples.iter().for_each(|sample| read(sample));
        let mut random = SmallRng::seed_from_u64(seed);
        for _ in 0..CASES {
            read(&changed(&mut random, samples));
        }
    }

    #[test]
    fn messages() {
        let mut startup = vec![0, 0, 0, 16, 0, 3, 0, 0];
        startup.extend(b"user\0m\0\0");
        startup[3] = u8::try_from(startup.len()).unwrap();
        let samples = [
            startup,
            vec![0, 0, 0, 8, 4, 210, 22, 47],
            vec![0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2],
            frame(b'Q', b"SELECT 1\0"),
            frame(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x14"),
            frame(b'B', b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x03abc\0\x01\0\x01"),
            frame(b'E', b"p\0\0\0\0\x05"),
            frame(b'D', b"Ss\0"),
            frame(b'd', b"rows"),
            frame(b'p', b"secret\0"),
        ];
        survives(1, pg_messages, &samples);
    }

    #[test]
    fn parameters() {
        let mut samples = Vec::new();
        for kind in 0..u8::try_from(KINDS.len()).unwrap() {
            let texts: [&[u8]; 8] =
                [b"t", b"-7", b"1.50e3", b"{1,NULL,\"a b\"}", b"\\x00ff", b"2024-01-01 01:02:03.5+01", b"1 day 02:00:00", b"x'); --"];
            samples.extend(texts.iter().map(|text| with(2 * kind, text)));
            let binary: [&[u8]; 6] = [
                &[1],
                &[0, 7],
                &[0, 0, 0, 7],
                &[0; 8],
                &[0; 16],
                &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9],
            ];
            samples.extend(binary.iter().map(|value| with(2 * kind + 1, value)));
            samples.push(with(2 * kind + 1, &[0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0x13, 0x88]));
        }
        survives(2, pg_parameter, &samples);
    }

    #[test]
    fn copies() {
        let mut binary = SIGNATURE.to_vec();
        binary.extend([0; 8]);
        binary.extend([0, 6, 0, 0, 0, 1, b'a', 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]);
        binary.extend([0xff; 16]);
        binary.extend([0xff; 2]);
        let samples = [
            with(0, b"a\t1\t1.50\t2024-01-01 00:00:00\t\\\\x00\t{t,f}\n\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n\\.\n"),
            with(9, b"\"a,b\",1,1.50,2024-01-01,\\x00,\"{t,f}\"\r\n\"\",,,,,\n"),
            with(14, b"word,n,price,at,raw,flags\n'a\\'b',1,1.50,2024-01-01,\\x00,'{t,f}'\n"),
            with(3, &binary),
            with(23, &binary),
        ];
        survives(3, copy_rows, &samples);
    }

    #[test]
    fn bodies() {
        let words: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec![Some("a"), None, Some("bc")]));
        let lists: arrow::array::ArrayRef = Arc::new(arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]));
        let batch = arrow::array::RecordBatch::try_from_iter([("word", words), ("lists", lists)]).unwrap();
        let mut samples = vec![
            with(0, b"{\"word\":\"a\",\"n\":1,\"price\":1.50,\"at\":\"2024-01-01T00:00:00\",\"flags\":[true,null]}\n\n{}\n"),
            with(1, b"[{\"word\":\"a\",\n\"n\":1},{\"raw\":\"00ff\"}]"),
            with(2, b"word,n,price\n\"a,b\",1,1.50\n,,\n"),
        ];
        for compression in [None, Some(arrow::ipc::CompressionType::ZSTD)] {
            let options = arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(compression).unwrap();
            let mut writer = arrow::ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            samples.push(with(3, &writer.into_inner().unwrap()));
        }
        survives(4, http_rows, &samples);
    }

    #[test]
    fn exchanges() {
        let samples = [
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO\0c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".to_vec(),
            b"y,a=b,n=,r=x\0c=eSw=,r=x,p=AA==".to_vec(),
            b"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2".to_vec(),
        ];
        survives(5, scram, &samples);
    }

    #[test]
    fn statements() {
        let samples = [
            &b"SELECT a, count(*) FROM t WHERE b = $1 GROUP BY a; INSERT INTO t VALUES (1, 'x''y', $$z$$)"[..],
            b"CREATE STREAM s (a BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'memory')",
            b"COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'x')",
            b"DECLARE c CURSOR FOR SUBSCRIBE TO (SELECT * FROM v) WITH (progress = true) AS OF EPOCH 5 UP TO EPOCH 9",
            b"SELECT * FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) AS w JOIN u FOR SYSTEM_TIME AS OF PROCTIME() ON w.a = u.a EMIT CHANGES",
        ];
        survives(6, statement, &samples.map(<[u8]>::to_vec));
    }
}
