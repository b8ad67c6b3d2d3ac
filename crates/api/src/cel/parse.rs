//! Tokens to a syntax tree, by precedence climbing.
//!
//! Rules
//!   R1 bounded  text, nesting and the number of nodes are bounded before anything is built from them
//!   R2 macros   calls that are macros are expanded where they are read (`macros`)
//!   R3 balanced chains of `&&` and `||` become balanced trees, so that long ones are not deep ones
//!
//! Source: CEL language definition, "Syntax" (grammar and precedence).

use std::sync::Arc;

use super::ast::{DEPTH_MAX, Entry, Expr, Kind, Literal, NESTING_MAX};
use super::escape::is_reserved;
use super::lex::{Token, lex};
use super::macros;
use super::source::Finding;

/// Nodes of an expression, at most: as many as honest text of the largest size could hold.
const NODES_MAX: usize = 100_000;

type Parsed = Result<Expr, Finding>;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Parsed {
    let mut parser = Parser { tokens: lex(text)?, next: 0, depth: 0, nodes: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.wrong(&format!("mismatched input '{}' expecting <EOF>", other.shown()))),
    }
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    next: usize,
    depth: u16,
    nodes: usize,
}

/// Binary operators that bind more tightly than `&&`, loosest first.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[("==", "_==_"), ("!=", "_!=_"), ("<=", "_<=_"), ("<", "_<_"), (">=", "_>=_"), (">", "_>_"), ("in", "@in")],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)].0
    }

    fn at(&self) -> u32 {
        self.tokens[self.next.min(self.tokens.len() - 1)].1
    }

    fn wrong(&self, what: &str) -> Finding {
        Finding::new(self.at(), format!("Syntax error: {what}"))
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Token::Mark(found) if *found == mark)
    }

    /// Takes the mark if it is next; gives where it stood.
    fn take(&mut self, mark: &str) -> Option<u32> {
        let at = self.at();
        self.is(mark).then(|| {
            self.next += 1;
            at
        })
    }

    fn expect(&mut self, mark: &str) -> Result<u32, Finding> {
        let found = self.peek().shown();
        self.take(mark).ok_or_else(|| self.wrong(&format!("mismatched input '{found}' expecting '{mark}'")))
    }

    fn name(&mut self) -> Result<Arc<str>, Finding> {
        match self.peek() {
            Token::Ident(name) if !matches!(&**name, "in" | "true" | "false" | "null") => {
                let name = Arc::clone(name);
                self.next += 1;
                Ok(name)
            }
            other => Err(self.wrong(&format!("mismatched input '{}' expecting IDENTIFIER", other.shown()))),
        }
    }

    /// Every node passes here.
    fn node(&mut self, expr: Expr) -> Parsed {
        self.nodes += 1;
        if expr.depth > DEPTH_MAX {
            return Err(Finding::new(expr.at, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        }
        if self.nodes > NODES_MAX {
            return Err(Finding::new(expr.at, format!("expression has more than {NODES_MAX} nodes")));
        }
        Ok(expr)
    }

    fn call(&mut self, at: u32, function: &str, args: Vec<Expr>) -> Parsed {
        self.node(Expr::call(at, function, args))
    }

    fn expr(&mut self) -> Parsed {
        if self.depth >= NESTING_MAX {
            return Err(Finding::new(self.at(), format!("expression recursion limit exceeded: {NESTING_MAX}")));
        }
        self.depth += 1;
        let condition = self.or()?;
        let expr = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.or()?;
                self.expect(":")?;
                let no = self.expr()?;
                self.call(at, "_?_:_", vec![condition, yes, no])?
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", "_||_", Parser::and)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", "_&&_", |parser| parser.binary(0))
    }

    fn chain(&mut self, mark: &str, function: &str, term: fn(&mut Parser) -> Parsed) -> Parsed {
        let mut terms = vec![term(self)?];
        let mut ats = Vec::new();
        while let Some(at) = self.take(mark) {
            ats.push(at);
            terms.push(term(self)?);
        }
        self.balance(terms, &ats, function)
    }

    /// R3: halves, so that the tree is as deep as the logarithm of the chain.
    fn balance(&mut self, mut terms: Vec<Expr>, ats: &[u32], function: &str) -> Parsed {
        if terms.len() < 2 {
            return terms.pop().ok_or_else(|| self.wrong("expected an expression"));
        }
        let half = terms.len().div_ceil(2);
        let right = terms.split_off(half);
        let left = self.balance(terms, &ats[..half - 1], function)?;
        let right = self.balance(right, &ats[half..], function)?;
        self.call(ats[half - 1], function, vec![left, right])
    }

    /// Operators of this level and tighter ones.
    fn binary(&mut self, loosest: usize) -> Parsed {
        let mut left = self.unary()?;
        while let Some((level, function)) = self.operator().filter(|(level, _)| *level >= loosest) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = self.call(at, function, vec![left, right])?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<(usize, &'static str)> {
        let found = match self.peek() {
            Token::Mark(mark) => *mark,
            Token::Ident(word) if &**word == "in" => "in",
            _ => return None,
        };
        LEVELS.iter().enumerate().find_map(|(level, operators)| {
            let (_, function) = operators.iter().find(|(mark, _)| *mark == found)?;
            Some((level, *function))
        })
    }

    fn unary(&mut self) -> Parsed {
        for (mark, function) in [("!", "!_"), ("-", "-_")] {
            let Some(at) = self.take(mark) else { continue };
            let mut signs = 1;
            while self.is(mark) {
                self.next += 1;
                signs += 1;
            }
            if mark == "-" && signs == 1 && matches!(self.peek(), Token::Int(_) | Token::Double(_)) {
                let number = self.number(at, true)?;
                return self.member(number);
            }
            let primary = self.primary()?;
            let operand = self.member(primary)?;
            // an even number of signs is none
            return if signs % 2 == 0 { Ok(operand) } else { self.call(at, function, vec![operand]) };
        }
        let primary = self.primary()?;
        self.member(primary)
    }

    fn number(&mut self, at: u32, negative: bool) -> Parsed {
        let literal = match self.peek() {
            Token::Int(digits) => {
                let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                    Some(hex) => (16, hex),
                    None => (10, &**digits),
                };
                let text = if negative { format!("-{digits}") } else { digits.to_owned() };
                i64::from_str_radix(&text, radix)
                    .map(Literal::Int)
                    .map_err(|_| Finding::new(at, "invalid int literal"))?
            }
            Token::Double(number) => Literal::Double(if negative { -number } else { *number }),
            other => return Err(self.wrong(&format!("mismatched input '{}'", other.shown()))),
        };
        self.next += 1;
        self.node(Expr::literal(at, literal))
    }

    fn member(&mut self, mut operand: Expr) -> Parsed {
        loop {
            if let Some(at) = self.take(".") {
                let optional = self.take("?").is_some();
                let field = self.name()?;
                let open = if optional { None } else { self.take("(") };
                operand = match open {
                    Some(open) => {
                        let args = self.list_until(")")?;
                        self.member_call(open, operand, &field, args)?
                    }
                    None => {
                        let operand = Box::new(operand);
                        self.node(Expr::new(at, Kind::Select { operand, field, test: false, optional }))?
                    }
                };
            } else if let Some(at) = self.take("[") {
                let optional = self.take("?").is_some();
                let index = self.expr()?;
                self.expect("]")?;
                operand = self.call(at, if optional { "_[?_]" } else { "_[_]" }, vec![operand, index])?;
            } else if self.is("{") {
                let Some(name) = operand.dotted() else { return Ok(operand) };
                operand = self.construct(name)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn member_call(&mut self, open: u32, target: Expr, function: &str, args: Vec<Expr>) -> Parsed {
        let expr = match macros::expand_member(open, target, function, args)? {
            macros::Expanded::Yes(expr) => expr,
            macros::Expanded::No(target, args) => Expr::member(open, target, function, args),
        };
        // the nodes a macro adds are a constant number each
        self.node(expr)
    }

    fn list_until(&mut self, close: &str) -> Result<Vec<Expr>, Finding> {
        let mut items = Vec::new();
        while self.take(close).is_none() {
            items.push(self.expr()?);
            if self.take(",").is_none() {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn construct(&mut self, name: String) -> Parsed {
        let at = self.expect("{")?;
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let field = self.name()?;
            self.expect(":")?;
            fields.push((field, self.expr()?, optional));
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        self.node(Expr::new(at, Kind::Struct { name, fields }))
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = match self.peek().clone() {
            Token::Int(_) | Token::Double(_) => return self.number(at, false),
            Token::Uint(number) => Literal::Uint(number),
            Token::String(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            Token::Ident(word) => match &*word {
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "null" => Literal::Null,
                _ => return self.word(at),
            },
            Token::Mark("(") => {
                self.next += 1;
                let expr = self.expr()?;
                self.expect(")")?;
                return Ok(expr);
            }
            Token::Mark("[") => return self.list(at),
            Token::Mark("{") => return self.map(at),
            Token::Mark(".") => {
                // a name from the root; there are no containers, so every name is
                self.next += 1;
                return self.word(at);
            }
            other => {
                let found = other.shown();
                return Err(self.wrong(&format!("mismatched input '{found}' expecting an expression")));
            }
        };
        self.next += 1;
        self.node(Expr::literal(at, literal))
    }

    fn word(&mut self, at: u32) -> Parsed {
        let name = self.name()?;
        if is_reserved(&name) {
            return Err(Finding::new(at, format!("reserved identifier: {name}")));
        }
        let Some(open) = self.take("(") else { return self.node(Expr::new(at, Kind::Ident(name))) };
        let args = self.list_until(")")?;
        let expr = match &*name {
            "has" => macros::has(open, args)?,
            _ => Expr::call(open, &name, args),
        };
        self.node(expr)
    }

    fn list(&mut self, at: u32) -> Parsed {
        self.expect("[")?;
        let mut items = Vec::new();
        while self.take("]").is_none() {
            let optional = self.take("?").is_some();
            items.push((self.expr()?, optional));
            if self.take(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        self.node(Expr::new(at, Kind::List(items)))
    }

    fn map(&mut self, at: u32) -> Parsed {
        self.expect("{")?;
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expr()?, optional });
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        self.node(Expr::new(at, Kind::Map(entries)))
    }
}
