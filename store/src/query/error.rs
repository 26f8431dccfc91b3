//! What is wrong with a query, and where.

use std::fmt;

/// A mistake in a query. Its display is the message, the line of the mistake with a caret below it, and the hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Where the mistake begins: character of the text, from 1.
    pub column: usize,
    /// What is wrong, lower case, literals in backticks.
    pub message: String,
    /// What would be valid there.
    pub hint: Option<String>,
    /// The query.
    pub text: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (column {})", self.message, self.column)?;
        // One line, at most about a terminal wide, around the mistake.
        let characters: Vec<char> = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let at = self.column.saturating_sub(1).min(characters.len());
        let first = at.saturating_sub(60);
        let shown: String = characters.iter().skip(first).take(100).collect();
        write!(f, "  {shown}\n  {}^", " ".repeat(at - first))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for QueryError {}

/// A mistake before the text is attached to it.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) column: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Mistake {
    pub(super) fn new(column: usize, message: impl Into<String>) -> Self {
        Self { column, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn with_text(self, text: &str) -> QueryError {
        QueryError { column: self.column, message: self.message, hint: self.hint, text: text.to_owned() }
    }
}
