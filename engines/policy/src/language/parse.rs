//! From tokens to a [`Policy`]: version and sections. Rules are read in `parse_rule`.

use std::collections::HashMap;

use super::ast::{Policy, Rule, TypeId, Version};
use super::lexer::{Token, TokenKind, place, tokens};
use super::{MAX_POLICY_BYTES, MAX_RULES, PolicyError};
use crate::query::Fuel;

/// The three blocks of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Configuration,
    Authorization,
    Issuance,
}

impl Section {
    fn named(word: &str) -> Option<Self> {
        match word {
            "configurationrules" => Some(Section::Configuration),
            "authorizationrules" => Some(Section::Authorization),
            "issuancerules" => Some(Section::Issuance),
            _ => None,
        }
    }
}

impl Policy {
    /// Reads a policy text.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            let expected = format!("at most {MAX_POLICY_BYTES} bytes of policy");
            return Err(PolicyError { line: 1, column: 1, expected, found: format!("{} bytes", text.len()) });
        }
        let tokens = tokens(text)?;
        let fuel = Fuel::new(MAX_LITERAL_WORK);
        let types = HashMap::new();
        let mut cursor = Cursor {
            source: text,
            tokens: &tokens,
            next: 0,
            version: Version::V1_0,
            types,
            known_line: (0, 1),
            fuel,
        };
        cursor.version = cursor.version()?;
        cursor.sections()
    }
}

/// A place in the token list.
pub(super) struct Cursor<'a> {
    pub source: &'a str,
    pub tokens: &'a [Token],
    pub next: usize,
    pub version: Version,
    /// The claim types that the rules name.
    pub types: HashMap<String, TypeId>,
    /// An offset that was asked for, and its line.
    pub known_line: (usize, usize),
    /// For the JSON texts that the policy writes out.
    pub fuel: Fuel,
}

/// Steps for reading the JSON texts that a policy writes out. There are no more bytes of them than of policy.
const MAX_LITERAL_WORK: u64 = 4 * MAX_POLICY_BYTES as u64;

/// Longest token that an error quotes, in characters.
const MAX_FOUND: usize = 80;

const END: Token = Token { kind: TokenKind::End, span: 0..0 };

impl<'a> Cursor<'a> {
    /// The token that comes next; [`TokenKind::End`] again and again at the end.
    pub fn peek(&self) -> &'a Token {
        self.tokens.get(self.next).or(self.tokens.last()).unwrap_or(&END)
    }

    pub fn advance(&mut self) -> &'a Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    /// Where the token before this place ends.
    pub fn previous_end(&self) -> usize {
        self.next
            .checked_sub(1)
            .and_then(|previous| self.tokens.get(previous))
            .map_or(0, |token| token.span.end)
    }

    /// Steps over a symbol if it comes next.
    pub fn takes(&mut self, symbol: &str) -> bool {
        let taken = matches!(&self.peek().kind, TokenKind::Symbol(found) if *found == symbol);
        self.next += usize::from(taken);
        taken
    }

    pub fn require(&mut self, symbol: &str) -> Result<(), PolicyError> {
        if self.takes(symbol) { Ok(()) } else { Err(self.error(&format!("`{symbol}`"))) }
    }

    pub fn require_word(&mut self, expected: &str) -> Result<&'a str, PolicyError> {
        match &self.peek().kind {
            TokenKind::Word(word) => {
                self.next += 1;
                Ok(word)
            }
            _ => Err(self.error(expected)),
        }
    }

    /// An error at the next token.
    pub fn error(&self, expected: &str) -> PolicyError {
        self.error_at(self.peek(), expected)
    }

    pub fn error_at(&self, token: &Token, expected: &str) -> PolicyError {
        let found = match &token.kind {
            TokenKind::End => "the end of the policy".to_owned(),
            _ => {
                let text = self.source.get(token.span.clone()).unwrap_or_default();
                let shown: String = text.chars().take(MAX_FOUND).collect();
                let more = if shown.len() < text.len() { "..." } else { "" };
                format!("`{shown}`{more}")
            }
        };
        self.error_found(token, expected, found)
    }

    pub fn error_found(&self, token: &Token, expected: &str, found: String) -> PolicyError {
        let (line, column) = place(self.source, token.span.start);
        PolicyError { line, column, expected: expected.to_owned(), found }
    }

    /// The line of an offset, counted on from the one that was asked for before it.
    pub fn line(&mut self, offset: usize) -> usize {
        let (known, line) = self.known_line;
        let between = self.source.get(known..offset).unwrap_or_default();
        self.known_line = (offset, line + between.matches('\n').count());
        self.known_line.1
    }

    /// The number of a claim type.
    pub fn type_id(&mut self, claim_type: &str) -> TypeId {
        let next = self.types.len();
        match self.types.get(claim_type) {
            Some(id) => *id,
            None => *self.types.entry(claim_type.to_owned()).or_insert(next),
        }
    }

    fn version(&mut self) -> Result<Version, PolicyError> {
        let token = self.peek();
        if self.require_word("`version`")? != "version" {
            return Err(self.error_at(token, "`version`"));
        }
        self.require("=")?;
        let first = self.advance();
        self.require(".")?;
        let last = self.advance();
        let version = match self.source.get(first.span.start..last.span.end) {
            Some("1.0") => Version::V1_0,
            Some("1.1") => Version::V1_1,
            Some("1.2") => Version::V1_2,
            _ => return Err(self.error_at(first, "version 1.0, 1.1 or 1.2")),
        };
        self.require(";")?;
        Ok(version)
    }

    fn sections(&mut self) -> Result<Policy, PolicyError> {
        let mut blocks: [Option<Vec<Rule>>; 3] = [None, None, None];
        let mut rules = 0;
        while self.peek().kind != TokenKind::End {
            let token = self.peek();
            let expected =
                "`configurationrules`, `authorizationrules`, `issuancerules` or the end of the policy";
            let word = self.require_word(expected)?;
            let section = Section::named(word).ok_or_else(|| self.error_at(token, expected))?;
            if section == Section::Configuration && self.version < Version::V1_1 {
                return Err(self.error_at(token, "no `configurationrules` before version 1.1"));
            }
            let [configuration, authorization, issuance] = &mut blocks;
            let block = match section {
                Section::Configuration => configuration,
                Section::Authorization => authorization,
                Section::Issuance => issuance,
            };
            if block.is_some() {
                return Err(self.error_at(token, "each section once"));
            }
            *block = Some(self.block(section, &mut rules)?);
        }
        let [configuration, authorization, issuance] = blocks.map(Option::unwrap_or_default);
        let types = std::mem::take(&mut self.types);
        Ok(Policy { version: self.version, configuration, authorization, issuance, types })
    }

    fn block(&mut self, section: Section, rules: &mut usize) -> Result<Vec<Rule>, PolicyError> {
        let mut block = Vec::new();
        self.require("{")?;
        while !self.takes("}") {
            *rules += 1;
            if *rules > MAX_RULES {
                return Err(self.error(&format!("at most {MAX_RULES} rules")));
            }
            block.push(self.rule(section)?);
        }
        self.takes(";");
        Ok(block)
    }
}
