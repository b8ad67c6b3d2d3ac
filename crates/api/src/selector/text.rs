//! The text form of label selectors: `app=web,tier in (a,b),!legacy,n>5`.

use std::collections::BTreeSet;

use super::{Requirement, SELECTOR_BYTES_MAX, SELECTOR_TERMS_MAX, SelectorError, Test};
use crate::name;

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(SelectorError::TooLong { found: text.len() });
    }
    let mut requirements = Vec::new();
    let mut tokens = Tokens { rest: text };
    if tokens.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        if requirements.len() == SELECTOR_TERMS_MAX {
            return Err(SelectorError::TooMany);
        }
        requirements.push(requirement(&mut tokens)?);
        match tokens.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => {}
            other => return Err(syntax("a comma or the end", other)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Token::End;
        }
        for symbol in ["==", "!=", "=", "!", ",", "(", ")", ">", "<"] {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                self.rest = rest;
                return Token::Symbol(symbol);
            }
        }
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word)
    }

    fn peek(&self) -> Token<'a> {
        Tokens { rest: self.rest }.next()
    }
}

fn syntax(expected: &'static str, found: Token) -> SelectorError {
    let found = match found {
        Token::Word(text) | Token::Symbol(text) => cut(text),
        Token::End => "the end".to_owned(),
    };
    SelectorError::Syntax { expected, found }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

fn requirement(tokens: &mut Tokens) -> Result<Requirement, SelectorError> {
    let absent = tokens.peek() == Token::Symbol("!");
    if absent {
        tokens.next();
    }
    let key = match tokens.next() {
        Token::Word(key) => key,
        other => return Err(syntax("a label key", other)),
    };
    check("key", key, name::label_key(key))?;
    let test = match tokens.peek() {
        _ if absent => Test::DoesNotExist,
        Token::End | Token::Symbol(",") => Test::Exists,
        _ => test(tokens)?,
    };
    Ok(Requirement { key: key.to_owned(), test })
}

fn test(tokens: &mut Tokens) -> Result<Test, SelectorError> {
    match tokens.next() {
        Token::Symbol("=" | "==") => Ok(Test::Equals(value(tokens)?)),
        Token::Symbol("!=") => Ok(Test::NotEquals(value(tokens)?)),
        Token::Symbol(">") => Ok(Test::GreaterThan(number(tokens)?)),
        Token::Symbol("<") => Ok(Test::LessThan(number(tokens)?)),
        Token::Word("in") => Ok(Test::In(values(tokens)?)),
        Token::Word("notin") => Ok(Test::NotIn(values(tokens)?)),
        other => Err(syntax("one of = == != in notin > <", other)),
    }
}

/// A value, which may be empty: `a=` and `a in (,b)` mean the empty text.
fn value(tokens: &mut Tokens) -> Result<String, SelectorError> {
    match tokens.peek() {
        Token::End | Token::Symbol("," | ")") => Ok(String::new()),
        Token::Word(text) => {
            tokens.next();
            check("value", text, name::label_value(text))?;
            Ok(text.to_owned())
        }
        other => Err(syntax("a label value", other)),
    }
}

fn values(tokens: &mut Tokens) -> Result<BTreeSet<String>, SelectorError> {
    match tokens.next() {
        Token::Symbol("(") => {}
        other => return Err(syntax("( and a list of values", other)),
    }
    let mut values = BTreeSet::new();
    loop {
        values.insert(value(tokens)?);
        match tokens.next() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Ok(values),
            other => return Err(syntax("a comma or )", other)),
        }
    }
}

fn number(tokens: &mut Tokens) -> Result<i64, SelectorError> {
    let found = tokens.next();
    match found {
        Token::Word(text) => text.parse().map_err(|_| syntax("a whole number", found)),
        other => Err(syntax("a whole number", other)),
    }
}

fn check(what: &'static str, text: &str, mut errors: Vec<String>) -> Result<(), SelectorError> {
    match errors.pop() {
        None => Ok(()),
        Some(why) => Err(SelectorError::Label { what, found: cut(text), why }),
    }
}
