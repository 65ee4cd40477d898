//! The bytes of the PostgreSQL protocol, version 3: messages of clients read, answers written.
//!
//! ```text
//!   first message:   length i32 (with itself) | code i32 | rest
//!   all others:      type u8 | length i32 (with itself) | body
//! ```
//! Reading trusts nothing: a length is checked before anything is kept for it, a count before anything is allocated for it, and a body
//! must end where its length says. **Errors**: [`WireError`], after which the connection cannot go on.
//! **Reference**: PostgreSQL documentation, "Frontend/Backend Protocol".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// The length of a first message at most; it comes from anybody.
pub(crate) const STARTUP_MAX: usize = 10_000;

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// A length that no message has.
    #[error("invalid message length {0}")]
    Length(i32),
    /// A message that is larger than allowed.
    #[error("the message has {size} bytes, more than the {max} that are allowed")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// A type no message has.
    #[error("invalid message type {0}")]
    Type(u8),
    /// A body that is not what its type says.
    #[error("invalid {0} message")]
    Body(&'static str),
}

/// A first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Asks for TLS.
    Ssl,
    /// Asks for encryption by GSSAPI.
    Gss,
    /// Cancels what another connection does.
    Cancel {
        /// The other connection.
        process: i32,
        /// Its secret.
        secret: i32,
    },
    /// Begins a session.
    Startup {
        /// Major and minor version.
        version: (u16, u16),
        /// `user`, `database` and settings.
        parameters: BTreeMap<String, String>,
    },
}

/// What `Describe` and `Close` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A message of a client after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A password, or a step of SASL.
    Password(Bytes),
    /// Statements of the simple protocol.
    Query(String),
    /// Prepares a statement.
    Parse {
        /// Its name; empty for the unnamed one.
        name: String,
        /// Its text.
        text: String,
        /// Types of its first parameters; 0 for unknown ones.
        types: Vec<u32>,
    },
    /// Makes a portal of a prepared statement and values.
    Bind {
        /// The portal's name.
        portal: String,
        /// The statement's name.
        statement: String,
        /// Formats of the values: none for text, one for all, or one each.
        formats: Vec<i16>,
        /// The values.
        values: Vec<Option<Bytes>>,
        /// Formats of the columns, likewise.
        result_formats: Vec<i16>,
    },
    /// Asks for types and columns.
    Describe(Target, String),
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: String,
        /// Rows at most; 0 for all.
        rows_max: u32,
    },
    /// Forgets a statement or portal.
    Close(Target, String),
    /// Asks for the answers so far.
    Flush,
    /// Ends a series of extended messages.
    Sync,
    /// Ends the session.
    Terminate,
    /// Part of the rows of COPY FROM STDIN.
    CopyData(Bytes),
    /// Their end.
    CopyDone,
    /// The client gives up.
    CopyFail(String),
}

/// Takes the first message off `buffer`; `None` while it is not all there.
///
/// # Errors
/// When it is none.
pub(crate) fn take_opening(buffer: &mut BytesMut) -> Result<Option<Opening>, WireError> {
    let Some(mut body) = take_frame(buffer, 0, STARTUP_MAX)? else { return Ok(None) };
    let body = &mut body;
    let opening = match i32_of(body, "startup")? {
        SSL_REQUEST => Opening::Ssl,
        GSS_REQUEST => Opening::Gss,
        CANCEL_REQUEST => Opening::Cancel { process: i32_of(body, "cancel")?, secret: i32_of(body, "cancel")? },
        version => {
            let version = ((version >> 16) as u16, (version & 0xffff) as u16);
            let mut parameters = BTreeMap::new();
            loop {
                let name = text_of(body, "startup")?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, text_of(body, "startup")?);
            }
            Opening::Startup { version, parameters }
        }
    };
    ended(body, "startup")?;
    Ok(Some(opening))
}

/// Takes a message off `buffer`; `None` while it is not all there. `size_max` bounds its body.
///
/// # Errors
/// When it is none.
pub(crate) fn take_message(buffer: &mut BytesMut, size_max: usize) -> Result<Option<Message>, WireError> {
    let Some(&kind) = buffer.first() else { return Ok(None) };
    if !b"pQPBDECHSXdcfF".contains(&kind) {
        return Err(WireError::Type(kind));
    }
    let Some(mut body) = take_frame(buffer, 1, size_max)? else { return Ok(None) };
    let body = &mut body;
    let message = match kind {
        b'p' => Message::Password(body.split_to(body.len())),
        b'Q' => Message::Query(text_of(body, "Query")?),
        b'P' => {
            let (name, text) = (text_of(body, "Parse")?, text_of(body, "Parse")?);
            let count = count_of(body, 4, "Parse")?;
            Message::Parse { name, text, types: (0..count).map(|_| body.get_u32()).collect() }
        }
        b'B' => {
            let (portal, statement) = (text_of(body, "Bind")?, text_of(body, "Bind")?);
            let count = count_of(body, 2, "Bind")?;
            let formats = (0..count).map(|_| body.get_i16()).collect();
            let count = count_of(body, 4, "Bind")?;
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                let length = i32_of(body, "Bind")?;
                values.push(match usize::try_from(length) {
                    Err(_) if length == -1 => None,
                    Ok(length) if length <= body.len() => Some(body.split_to(length)),
                    _ => return Err(WireError::Body("Bind")),
                });
            }
            let count = count_of(body, 2, "Bind")?;
            let result_formats = (0..count).map(|_| body.get_i16()).collect();
            Message::Bind { portal, statement, formats, values, result_formats }
        }
        b'D' => {
            let (target, name) = target_of(body, "Describe")?;
            Message::Describe(target, name)
        }
        b'C' => {
            let (target, name) = target_of(body, "Close")?;
            Message::Close(target, name)
        }
        b'E' => {
            let portal = text_of(body, "Execute")?;
            // A negative number means all rows, as 0 does.
            Message::Execute { portal, rows_max: u32::try_from(i32_of(body, "Execute")?).unwrap_or(0) }
        }
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' => Message::CopyData(body.split_to(body.len())),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(text_of(body, "CopyFail")?),
        _ => return Err(WireError::Type(kind)),
    };
    ended(body, "frontend")?;
    Ok(Some(message))
}

/// The body of a frame whose length stands `offset` bytes in.
fn take_frame(buffer: &mut BytesMut, offset: usize, size_max: usize) -> Result<Option<Bytes>, WireError> {
    let Some(mut head) = buffer.get(offset..offset + 4) else { return Ok(None) };
    let length = head.get_i32();
    let size = usize::try_from(length).ok().filter(|length| *length >= 4).ok_or(WireError::Length(length))?;
    if size > size_max {
        return Err(WireError::TooLarge { size, max: size_max });
    }
    if buffer.len() < offset + size {
        return Ok(None);
    }
    buffer.advance(offset + 4);
    Ok(Some(buffer.split_to(size - 4).freeze()))
}

fn i32_of(body: &mut Bytes, message: &'static str) -> Result<i32, WireError> {
    if body.len() < 4 { Err(WireError::Body(message)) } else { Ok(body.get_i32()) }
}

/// A text that ends with a zero byte.
fn text_of(body: &mut Bytes, message: &'static str) -> Result<String, WireError> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(WireError::Body(message))?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.into()).map_err(|_| WireError::Body(message))
}

/// A number of elements of at least `size` bytes each.
fn count_of(body: &mut Bytes, size: usize, message: &'static str) -> Result<usize, WireError> {
    if body.len() < 2 {
        return Err(WireError::Body(message));
    }
    let count = usize::from(body.get_u16());
    if count * size > body.len() { Err(WireError::Body(message)) } else { Ok(count) }
}

fn target_of(body: &mut Bytes, message: &'static str) -> Result<(Target, String), WireError> {
    let target = match body.first() {
        Some(b'S') => Target::Statement,
        Some(b'P') => Target::Portal,
        _ => return Err(WireError::Body(message)),
    };
    body.advance(1);
    Ok((target, text_of(body, message)?))
}

fn ended(body: &Bytes, message: &'static str) -> Result<(), WireError> {
    if body.is_empty() { Ok(()) } else { Err(WireError::Body(message)) }
}

/// A column as `RowDescription` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnDescription<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The number of its type.
    pub(crate) type_oid: u32,
    /// Bytes a value takes, negative for any number.
    pub(crate) type_size: i16,
    /// Precision and scale, or -1.
    pub(crate) modifier: i32,
    /// 0 for text, 1 for binary.
    pub(crate) format: i16,
}

/// Answers, written one after the other.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The bytes so far.
    pub(crate) buffer: BytesMut,
}

impl Answers {
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.buffer.put_u8(kind);
        let start = self.buffer.len();
        self.buffer.put_i32(0);
        body(&mut self.buffer);
        // A single message beyond 2 GiB does not come to be: rows are far below, and texts are bounded by what clients send.
        let length = i32::try_from(self.buffer.len() - start).unwrap_or(i32::MAX);
        self.buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// A single byte in answer to a request for encryption.
    pub(crate) fn encryption(&mut self, accepted: bool) {
        self.buffer.put_u8(if accepted { b'S' } else { b'N' });
    }

    /// Asks for a step of authentication, or says that it is done (code 0).
    pub(crate) fn authentication(&mut self, code: i32, data: &[u8]) {
        self.message(b'R', |out| {
            out.put_i32(code);
            out.put_slice(data);
        });
    }

    pub(crate) fn parameter_status(&mut self, name: &str, value: &str) {
        self.message(b'S', |out| {
            text(out, name);
            text(out, value);
        });
    }

    pub(crate) fn backend_key(&mut self, process: i32, secret: i32) {
        self.message(b'K', |out| {
            out.put_i32(process);
            out.put_i32(secret);
        });
    }

    /// The client asked for a newer minor version or for options that are not known.
    pub(crate) fn negotiate_version(&mut self, minor: i32, unknown: &[&str]) {
        self.message(b'v', |out| {
            out.put_i32(minor);
            out.put_i32(i32::try_from(unknown.len()).unwrap_or(i32::MAX));
            unknown.iter().for_each(|name| text(out, name));
        });
    }

    /// `I`, `T` or `E`: idle, in a transaction, in a failed one.
    pub(crate) fn ready(&mut self, status: u8) {
        self.message(b'Z', |out| out.put_u8(status));
    }

    pub(crate) fn parse_complete(&mut self) {
        self.message(b'1', |_| {});
    }

    pub(crate) fn bind_complete(&mut self) {
        self.message(b'2', |_| {});
    }

    pub(crate) fn close_complete(&mut self) {
        self.message(b'3', |_| {});
    }

    pub(crate) fn no_data(&mut self) {
        self.message(b'n', |_| {});
    }

    pub(crate) fn empty_query(&mut self) {
        self.message(b'I', |_| {});
    }

    pub(crate) fn portal_suspended(&mut self) {
        self.message(b's', |_| {});
    }

    pub(crate) fn command_complete(&mut self, tag: &str) {
        self.message(b'C', |out| text(out, tag));
    }

    pub(crate) fn parameters(&mut self, types: &[u32]) {
        self.message(b't', |out| {
            out.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
            types.iter().for_each(|oid| out.put_u32(*oid));
        });
    }

    pub(crate) fn row_description(&mut self, columns: &[ColumnDescription<'_>]) {
        self.message(b'T', |out| {
            out.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            for column in columns {
                text(out, column.name);
                // Table and column it comes from: not told.
                out.put_i32(0);
                out.put_i16(0);
                out.put_u32(column.type_oid);
                out.put_i16(column.type_size);
                out.put_i32(column.modifier);
                out.put_i16(column.format);
            }
        });
    }

    /// A row whose values are encoded already, each with its length.
    pub(crate) fn data_row(&mut self, columns: usize, values: &[u8]) {
        self.message(b'D', |out| {
            out.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
            out.put_slice(values);
        });
    }

    /// COPY begins: `G` takes rows of the client, `H` sends rows.
    pub(crate) fn copy_begins(&mut self, kind: u8, binary: bool, columns: usize) {
        self.message(kind, |out| {
            out.put_u8(u8::from(binary));
            out.put_u16(u16::try_from(columns).unwrap_or(u16::MAX));
            (0..columns).for_each(|_| out.put_i16(i16::from(binary)));
        });
    }

    pub(crate) fn copy_data(&mut self, data: &[u8]) {
        self.message(b'd', |out| out.put_slice(data));
    }

    pub(crate) fn copy_done(&mut self) {
        self.message(b'c', |_| {});
    }

    /// An error (`E`) or a notice (`N`) with its fields.
    pub(crate) fn report(&mut self, kind: u8, fields: &[(u8, &str)]) {
        self.message(kind, |out| {
            for (field, value) in fields {
                out.put_u8(*field);
                text(out, value);
            }
            out.put_u8(0);
        });
    }
}

/// A text and its zero byte; what comes after a zero byte within it is cut off.
fn text(out: &mut BytesMut, value: &str) {
    out.put_slice(value.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        buffer.put_u8(kind);
        buffer.put_i32(i32::try_from(body.len()).unwrap() + 4);
        buffer.put_slice(body);
        buffer
    }

    #[test]
    fn messages_are_read_when_they_are_complete() {
        let whole = frame(b'Q', b"SELECT 1\0");
        for length in 0..whole.len() {
            assert_eq!(take_message(&mut BytesMut::from(&whole[..length]), 1_000), Ok(None));
        }
        let mut buffer = whole.clone();
        buffer.put_slice(b"S");
        assert_eq!(take_message(&mut buffer, 1_000), Ok(Some(Message::Query("SELECT 1".into()))));
        assert_eq!(&buffer[..], b"S", "the next message stays");
        let bind = frame(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0");
        assert_eq!(
            take_message(&mut bind.clone(), 1_000),
            Ok(Some(Message::Bind {
                portal: "p".into(),
                statement: "s".into(),
                formats: vec![1],
                values: vec![Some(Bytes::from_static(b"x")), None],
                result_formats: vec![],
            }))
        );
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(take_message(&mut frame(b'?', b""), 100), Err(WireError::Type(b'?')));
        for length in [i32::MIN, -1, 0, 3] {
            let mut buffer = BytesMut::from(&b"Q"[..]);
            buffer.put_i32(length);
            assert_eq!(take_message(&mut buffer, 100), Err(WireError::Length(length)));
        }
        let mut huge = BytesMut::from(&b"Q\x7f\xff\xff\xff"[..]);
        assert!(matches!(take_message(&mut huge, 100), Err(WireError::TooLarge { .. })), "before its body has come");
        let bodies: [(u8, &[u8]); 12] = [
            (b'Q', b"no end"),
            (b'Q', b"x\0y\0"),
            (b'Q', b"\xff\xfe\0"),
            (b'P', b"\0\0\xff\xff"),
            (b'B', b"\0\0\xff\xff"),
            (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'D', b"Q\0"),
            (b'D', b""),
            (b'C', b"P"),
            (b'E', b"\0\0\0"),
            (b'S', b"x"),
        ];
        for (kind, body) in bodies {
            assert!(matches!(take_message(&mut frame(kind, body), 1_000), Err(WireError::Body(_))), "{} {body:?}", char::from(kind));
        }
    }

    #[test]
    fn any_bytes_give_an_answer() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::SmallRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let length: i32 = random.random_range(0..40);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
            if length > 5 {
                // Mostly frames of the right length, so that bodies are read.
                bytes[0] = b"pQPBDECHSXdcf"[random.random_range(0..13)];
                bytes[1..5].copy_from_slice(&(length - 1).to_be_bytes());
            }
            let _ = take_message(&mut BytesMut::from(&bytes[..]), 1_000);
            let _ = take_opening(&mut BytesMut::from(&bytes[..]));
        }
    }

    #[test]
    fn first_messages_are_told_apart() {
        let opening = |body: &[u8]| {
            let mut buffer = BytesMut::new();
            buffer.put_i32(i32::try_from(body.len()).unwrap() + 4);
            buffer.put_slice(body);
            take_opening(&mut buffer)
        };
        assert_eq!(opening(&SSL_REQUEST.to_be_bytes()), Ok(Some(Opening::Ssl)));
        let startup = opening(b"\0\x03\0\0user\0me\0\0");
        let parameters = BTreeMap::from([("user".to_string(), "me".to_string())]);
        assert_eq!(startup, Ok(Some(Opening::Startup { version: (3, 0), parameters })));
        assert_eq!(opening(b"\0\x03\0\0user\0me\0"), Err(WireError::Body("startup")));
        assert_eq!(opening(b"\0"), Err(WireError::Body("startup")));
        let mut long = BytesMut::from(&1_000_000_i32.to_be_bytes()[..]);
        assert!(matches!(take_opening(&mut long), Err(WireError::TooLarge { .. })));
    }
}
