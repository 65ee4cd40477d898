//! Passwords in the text of statements: what is shown of a statement has none.
//!
//! ```
//! use millstream_sql::secrets::without_passwords;
//! assert_eq!(without_passwords("CREATE USER ada PASSWORD 's''x' ROLE admin"), "CREATE USER ada PASSWORD '****' ROLE admin");
//! assert_eq!(without_passwords("SELECT 1"), "SELECT 1");
//! ```

use std::borrow::Cow;

const WORD: &str = "password";

/// The text with a `*` for each character of what follows the word PASSWORD, so that places in it stay where they are.
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut shown = String::new();
    let mut at = 0;
    while let Some(found) = lower[at..].find(WORD).map(|found| at + found) {
        let secret = found + WORD.len();
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let whole = !is_word(lower.as_bytes().get(found.wrapping_sub(1))) && !is_word(lower.as_bytes().get(secret));
        if !whole {
            shown.push_str(&text[at..secret]);
            at = secret;
            continue;
        }
        let blank = lower[secret..].find(|c: char| !c.is_whitespace() && c != '=').unwrap_or(lower.len() - secret);
        let start = secret + blank;
        shown.push_str(&text[at..start]);
        at = start + hide(&text[start..], &mut shown);
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(&text[at..]);
    Cow::Owned(shown)
}

/// Writes the value at the beginning of `text` with stars, and gives its length.
fn hide(text: &str, shown: &mut String) -> usize {
    let Some(quote @ ('\'' | '"')) = text.chars().next() else {
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, ';' | ',' | ')')).unwrap_or(text.len());
        if text[..end].eq_ignore_ascii_case("null") || text[..end].eq_ignore_ascii_case("is") {
            shown.push_str(&text[..end]);
        } else {
            shown.extend(text[..end].chars().map(|_| '*'));
        }
        return end;
    };
    shown.push(quote);
    let mut rest = text[1..].char_indices().peekable();
    while let Some((index, c)) = rest.next() {
        if c != quote {
            shown.push(if c == '\n' { '\n' } else { '*' });
        } else if rest.next_if(|(_, next)| *next == quote).is_some() {
            shown.push_str("**");
        } else {
            shown.push(quote);
            return 1 + index + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_the_word_is_hidden() {
        for (text, shown) in [
            ("ALTER USER a password = 'x y';", "ALTER USER a password = '***';"),
            ("create user a PASSWORD\n'geheim\nnis' role admin", "create user a PASSWORD\n'******\n***' role admin"),
            ("CREATE USER a PASSWORD \"x\"", "CREATE USER a PASSWORD \"*\""),
            ("CREATE USER a PASSWORD geheim, b", "CREATE USER a PASSWORD ******, b"),
            ("CREATE USER a PASSWORD 'open", "CREATE USER a PASSWORD '****"),
            ("ALTER USER a PASSWORD NULL", "ALTER USER a PASSWORD NULL"),
            ("SELECT passwords, my_password FROM t WHERE x = 'y'", "SELECT passwords, my_password FROM t WHERE x = 'y'"),
            ("PASSWORD", "PASSWORD"),
            ("é PASSWORD 'é' é", "é PASSWORD '*' é"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
