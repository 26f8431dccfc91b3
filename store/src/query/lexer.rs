//! Text to tokens with the column (characters, from 1) where each begins.
//!
//! A word is everything up to white space or one of `( ) { } , = ! < > ~ & | " '`; so addresses, networks, times,
//! patterns and image references need no quotes. What stands between quotes is kept as written (only the quote itself
//! is unescaped), because a regular expression and a pattern read backslashes differently.

use super::error::Mistake;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Matches,
    MatchesNot,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Quoted(String),
    Operator(Operator),
    And,
    Or,
    Not,
    Open,
    Close,
    OpenSet,
    CloseSet,
    Comma,
    Pipe,
    End,
}

impl Token {
    /// As messages name it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(text) => format!("`\"{text}\"`"),
            Self::Operator(operator) => format!("`{}`", operator.as_str()),
            Self::And => "`&&`".into(),
            Self::Or => "`||`".into(),
            Self::Not => "`!`".into(),
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
            Self::OpenSet => "`{`".into(),
            Self::CloseSet => "`}`".into(),
            Self::Comma => "`,`".into(),
            Self::Pipe => "`|`".into(),
            Self::End => "the end of the query".into(),
        }
    }
}

impl Operator {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Matches => "~",
            Self::MatchesNot => "!~",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Positioned {
    pub(super) token: Token,
    pub(super) column: usize,
    /// Follows the token before without white space.
    pub(super) adjacent: bool,
}

fn ends_word(character: char) -> bool {
    character.is_whitespace() || "(){},=!<>~&|\"'".contains(character)
}

/// All tokens, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Positioned>, Mistake> {
    let mut rest = text.chars().enumerate().peekable();
    let mut tokens = Vec::new();
    let mut adjacent = false;
    while let Some((index, character)) = rest.next() {
        let column = index + 1;
        let mut follows = |wanted: char| rest.next_if(|(_, c)| *c == wanted).is_some();
        let token = match character {
            c if c.is_whitespace() => {
                adjacent = false;
                continue;
            }
            '(' => Token::Open,
            ')' => Token::Close,
            '{' => Token::OpenSet,
            '}' => Token::CloseSet,
            ',' => Token::Comma,
            '~' => Token::Operator(Operator::Matches),
            '=' => {
                follows('=');
                Token::Operator(Operator::Equal)
            }
            '!' if follows('=') => Token::Operator(Operator::NotEqual),
            '!' if follows('~') => Token::Operator(Operator::MatchesNot),
            '!' => Token::Not,
            '<' if follows('=') => Token::Operator(Operator::LessEqual),
            '<' => Token::Operator(Operator::Less),
            '>' if follows('=') => Token::Operator(Operator::GreaterEqual),
            '>' => Token::Operator(Operator::Greater),
            '&' if follows('&') => Token::And,
            '|' if follows('|') => Token::Or,
            '|' => Token::Pipe,
            '&' => return Err(Mistake::new(column, "`&` is not an operator").hint("write `&&`")),
            '“' | '”' | '„' | '‘' | '’' | '‚' => {
                return Err(Mistake::new(column, format!("`{character}` is no quote")).hint("write `\"` or `'`"));
            }
            '"' | '\'' => Token::Quoted(quoted(&mut rest, character, column)?),
            first => {
                let mut word = String::from(first);
                while let Some((_, next)) = rest.next_if(|(_, c)| !ends_word(*c)) {
                    word.push(next);
                }
                Token::Word(word)
            }
        };
        tokens.push(Positioned { token, column, adjacent });
        adjacent = true;
    }
    tokens.push(Positioned { token: Token::End, column: text.chars().count() + 1, adjacent: false });
    Ok(tokens)
}

fn quoted(rest: &mut impl Iterator<Item = (usize, char)>, quote: char, column: usize) -> Result<String, Mistake> {
    let mut content = String::new();
    while let Some((_, character)) = rest.next() {
        if character == quote {
            return Ok(content);
        }
        if character == '\\' {
            match rest.next() {
                Some((_, escaped)) if escaped == quote => content.push(quote),
                Some((_, escaped)) => content.extend(['\\', escaped]),
                None => break,
            }
        } else {
            content.push(character);
        }
    }
    Err(Mistake::new(column, "the quote that begins here has no end").hint(format!("close it with `{quote}`")))
}
