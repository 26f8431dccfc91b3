//! Who may read besides the owner: `[[readers]]`.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use wiretag_store::query::{QueryError, RowFilter};
use wiretag_web::Reader;

/// Characters of a token at least: fewer could be guessed.
pub(crate) const SHORTEST: usize = 32;
/// How a token is made.
const MAKE: &str = "make one with `head -c 32 /dev/urandom | base64`";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name`, `token_file` and `rows`")]
pub(super) struct WrittenReader {
    name: String,
    token_file: PathBuf,
    rows: Option<String>,
}

/// Somebody who may read.
#[derive(Debug, Clone)]
pub(crate) struct ReaderConfig {
    name: String,
    token_file: PathBuf,
    /// Which rows; `None`: all.
    rows: Option<RowFilter>,
}

pub(super) fn readers(written: Vec<WrittenReader>) -> anyhow::Result<Vec<ReaderConfig>> {
    let mut names = HashSet::new();
    let checked = |WrittenReader { name, token_file, rows }| {
        if name.trim().is_empty() || !names.insert(name.clone()) {
            bail!("`readers.name` is `{name}`; hint: each reader has a name of its own");
        }
        if rows.as_deref().is_some_and(|rows| rows.trim().is_empty()) {
            bail!("`readers.rows` of `{name}` is empty; hint: leave it out for a reader who may see every row");
        }
        let mistake = |QueryError { column, message, hint, .. }| {
            let hint = hint.unwrap_or_else(|| "a condition that flows and transactions have".to_owned());
            anyhow::anyhow!("`readers.rows` of `{name}`, character {column}: {message}; hint: {hint}")
        };
        let rows = rows.as_deref().map(RowFilter::parse).transpose().map_err(mistake)?;
        Ok(ReaderConfig { name, token_file, rows })
    };
    written.into_iter().map(checked).collect()
}

impl ReaderConfig {
    /// With the token, which is read from its file.
    pub(crate) fn read(&self) -> anyhow::Result<Reader> {
        let Self { name, token_file, rows } = self;
        let path = token_file.display();
        let text = std::fs::read_to_string(token_file)
            .with_context(|| format!("cannot read `{path}`, the token of the reader `{name}`; hint: {MAKE}"))?;
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("`{path}` holds no token of at least {SHORTEST} ASCII characters; hint: {MAKE}");
        }
        Ok(Reader { name: name.clone(), token: token.to_owned(), rows: rows.clone() })
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        readers: Vec<WrittenReader>,
    }

    fn of(text: &str) -> Result<Vec<ReaderConfig>, String> {
        readers(toml::from_str::<File>(text).expect("TOML").readers).map_err(|error| error.to_string())
    }

    #[test]
    fn a_reader_has_a_name_and_a_condition_of_both_tables() {
        let reader = |name: &str, rows: &str| format!("[[readers]]\nname = '{name}'\ntoken_file = '/t'\n{rows}\n");
        let two = of(&(reader("shop", "rows = 'namespace == shop'") + &reader("all", ""))).expect("readers");
        let rows: Vec<_> = two.iter().map(|own| own.rows.as_ref().map(RowFilter::text)).collect();
        assert_eq!(rows, [Some("namespace == shop"), None]);
        for (wrong, part) in [
            (reader("", ""), "name of its own"),
            (reader("a", "") + &reader("a", ""), "name of its own"),
            (reader("a", "rows = ' '"), "leave it out"),
            (reader("a", "rows = 'namespace =='"), "of `a`, character 13"),
            (reader("a", "rows = 'retransmits > 3'"), "of `a`, character 1"),
            (reader("a", "rows = 'start > -5m'"), "of `a`, character 9"),
        ] {
            let error = of(&wrong).expect_err(&wrong);
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn a_token_is_long_and_never_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let reader = ReaderConfig { name: "shop".to_owned(), token_file: file.path().to_owned(), rows: None };
        std::fs::write(file.path(), "  0123456789abcdef0123456789abcdef\n").expect("written");
        assert_eq!(reader.read().expect("a token").token, "0123456789abcdef0123456789abcdef");
        for wrong in ["", "secret", "secret secret secret secret secret secret"] {
            std::fs::write(file.path(), wrong).expect("written");
            let error = format!("{:#}", reader.read().expect_err(wrong));
            assert!(
                error.contains("32 ASCII") && error.contains("/dev/urandom") && !error.contains("secret"),
                "{error}"
            );
        }
        let gone = ReaderConfig { token_file: "/nowhere/token".into(), ..reader };
        assert!(format!("{:#}", gone.read().expect_err("no file")).contains("the token of the reader `shop`"));
    }
}
