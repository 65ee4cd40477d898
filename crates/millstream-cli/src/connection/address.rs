//! Where a server is, and who we are there: `flight://[user[:password]@]host[:port][?tls=on&ca=FILE]`.
//!
//! | scheme | |
//! | --- | --- |
//! | `flight`, `grpc`, `grpc+tcp` | not encrypted, unless `tls=on` says so |
//! | `flight+tls`, `grpc+tls` | encrypted |
//!
//! `tls=off` takes precedence over nothing: an encrypted scheme stays encrypted. With `ca=FILE` the server's certificate must be signed by
//! one of the file's, else by one that the system trusts. A password that is not in the address comes from `MILLSTREAM_PASSWORD`, a token
//! from `MILLSTREAM_TOKEN`.

use crate::failure::Failure;
use percent_encoding::percent_decode_str;
use std::path::PathBuf;
use url::Url;

/// The port of `serve --flight`.
const PORT: u16 = 8081;

/// Where a server is, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The host.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The user, if one is named.
    pub(crate) user: Option<String>,
    /// The password, if it is known.
    pub(crate) password: Option<String>,
    /// The connection is encrypted.
    pub(crate) tls: bool,
    /// Certificates that the server's is signed by.
    pub(crate) ca: Option<PathBuf>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("Address").field("host", &self.host).field("port", &self.port).field("user", &self.user).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Understands an address.
    ///
    /// # Errors
    /// A usage error that says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let form = "Write flight://[user@]host[:port], or flight+tls://..; `serve` prints the address.";
        let wrong = |what: String, hint: &str| Failure::usage(format!("{what}\nhint: {hint}"));
        // The address itself is not repeated: it may hold a password.
        let url = Url::parse(text).map_err(|error| wrong(format!("the address of the server is none: {error}"), form))?;
        let encrypted = match url.scheme() {
            "flight" | "grpc" | "grpc+tcp" => false,
            "flight+tls" | "grpc+tls" => true,
            "postgres" | "postgresql" => {
                let hint = "The shell speaks Arrow Flight SQL, which has every type: flight://host:8081, the address of `serve --flight`.";
                return Err(wrong("--connect does not speak the PostgreSQL protocol".into(), hint));
            }
            scheme => return Err(wrong(format!("\"{scheme}\" is no scheme of a server"), form)),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the address names no host".into(), form))?;
        if !matches!(url.path(), "" | "/") {
            return Err(wrong(format!("the address of a server has no path, such as \"{}\"", url.path()), form));
        }
        let decoded =
            |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned()).filter(|text| !text.is_empty());
        let mut address = Self {
            host: host.to_string(),
            port: url.port().unwrap_or(PORT),
            user: decoded(url.username()),
            password: url.password().and_then(decoded),
            tls: encrypted,
            ca: None,
        };
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("tls", "on") => address.tls = true,
                ("tls", "off") => {}
                ("tls", _) => return Err(wrong(format!("tls is \"{value}\", and neither on nor off"), form)),
                ("ca", file) => address.ca = Some(PathBuf::from(file)),
                (name, _) => return Err(wrong(format!("unknown option \"{name}\" of the address"), "There are tls and ca.")),
            }
        }
        if address.ca.is_some() && !address.tls {
            return Err(wrong("certificates are of no use without TLS".into(), "Write flight+tls://.."));
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Address, String> {
        Address::parse(text).map_err(|failure| failure.message)
    }

    #[test]
    fn addresses_are_understood() {
        let plain = parsed("flight://localhost").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.tls, plain.user), ("localhost", 8081, false, None));
        let full = parsed("flight+tls://ada:se%3Acret%40@db.example.org:9000/?ca=%2Fetc%2Fca.pem").unwrap();
        assert_eq!((full.to_string().as_str(), full.tls), ("db.example.org:9000", true));
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("ada"), Some("se:cret@")));
        assert_eq!(full.ca, Some(PathBuf::from("/etc/ca.pem")));
        assert!(!format!("{full:?}").contains("cret"));
        assert_eq!(parsed("grpc://[::1]:1?tls=on").map(|address| (address.host, address.tls)), Ok(("[::1]".into(), true)));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        assert!(parsed("postgres://me@localhost:6543").unwrap_err().contains("flight://host:8081"));
        for wrong in
            ["", "localhost:8081", "http://x", "flight://", "flight://x/db", "flight://x?tls=maybe", "flight://x?y=1", "flight://x?ca=f"]
        {
            let message = parsed(wrong).unwrap_err();
            assert!(message.contains("\nhint: "), "{wrong}: {message}");
        }
        assert!(!parsed("flight://me:secret@x/db").unwrap_err().contains("secret"));
    }
}
