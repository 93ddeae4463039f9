//! From characters to tokens with their places.

use std::ops::Range;

use winnow::combinator::{alt, delimited, opt, preceded, repeat};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{none_of, one_of, take_while};

use super::PolicyError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word(String),
    Text(String),
    Integer(i64),
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub span: Range<usize>,
}

type Input<'a> = LocatingSlice<&'a str>;

/// Longer symbols first, so that `=>` is not read as `=`.
const SYMBOLS: [&str; 20] = [
    "=>", "==", "!=", "<=", ">=", "&&", "=", "!", "<", ">", "{", "}", "[", "]", "(", ")", ";", ",", ":", ".",
];

/// All tokens of a policy; the last one is [`TokenKind::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, PolicyError> {
    let mut input = LocatingSlice::new(source);
    let mut tokens = Vec::new();
    loop {
        let _ = blank(&mut input);
        let start = input.current_token_start();
        let rest = source.get(start..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { kind: TokenKind::End, span: start..start });
            return Ok(tokens);
        };
        match lexeme(&mut input) {
            Ok(kind) => tokens.push(Token { kind, span: start..input.current_token_start() }),
            Err(_) => return Err(unreadable(source, start, first)),
        }
    }
}

/// Where an offset lies: line and column, both from 1.
pub(super) fn place(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before.get(line_start..).unwrap_or_default().chars().count() + 1)
}

fn unreadable(source: &str, start: usize, first: char) -> PolicyError {
    let (line, column) = place(source, start);
    let expected = match first {
        '"' => r#"text that ends with a quotation mark and has only the escapes \" and \\"#,
        '-' | '0'..='9' => "an integer of 64 bits",
        _ => "a word, a text, an integer or a symbol of the policy language",
    };
    PolicyError { line, column, expected: expected.to_owned(), found: format!("{first:?}") }
}

fn blank(input: &mut Input<'_>) -> winnow::Result<()> {
    let comment = ("//", take_while(0.., |character| character != '\n')).void();
    repeat(0.., alt((take_while(1.., char::is_whitespace).void(), comment))).parse_next(input)
}

fn lexeme(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    alt((word, text, integer, symbol)).parse_next(input)
}

fn word(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    let first = one_of(|character: char| character.is_ascii_alphabetic() || character == '_');
    (first, take_while(0.., |character: char| character.is_ascii_alphanumeric() || character == '_'))
        .take()
        .map(|word: &str| TokenKind::Word(word.to_owned()))
        .parse_next(input)
}

fn text(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    let escaped = preceded('\\', one_of(['"', '\\']));
    let characters = repeat(0.., alt((escaped, none_of(['"', '\\']))));
    delimited('"', characters, '"').map(TokenKind::Text).parse_next(input)
}

fn integer(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    let end = winnow::combinator::not(one_of(|character: char| character.is_ascii_alphanumeric()));
    winnow::combinator::terminated((opt('-'), take_while(1.., '0'..='9')).take(), end)
        .try_map(|digits: &str| digits.parse().map(TokenKind::Integer))
        .parse_next(input)
}

fn symbol(input: &mut Input<'_>) -> winnow::Result<TokenKind> {
    for symbol in SYMBOLS {
        if input.starts_with(symbol) {
            return symbol.value(TokenKind::Symbol(symbol)).parse_next(input);
        }
    }
    winnow::combinator::fail.parse_next(input)
}
