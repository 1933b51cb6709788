//! The parser: recursive descent over the tokens, macros expanded on the way (cel-spec's grammar).
//!
//! After the first syntax error nothing more is said: ANTLR's recovery is not imitated.

use std::sync::Arc;

use crate::ast::{Expr, FieldEntry, Id, Kind, Literal, MapEntry, Name, Parsed};
use crate::lexer::{Tok, Token, tokens};
use crate::literal;
use crate::macros;
use crate::source::{Issue, MAX_SHOWN, Source};

/// Brackets within brackets: each costs a handful of stack frames.
const MAX_NESTING: u32 = 100;
/// The depth of the tree that checking and evaluation walk down.
const MAX_DEPTH: u32 = 250;
const TOO_DEEP: &str = "expression recursion limit exceeded: 250";
/// cel-go's limit on the length of an expression.
const MAX_CODE_POINTS: usize = 100_000;

const WANTED: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Identifiers that no expression may use (CEL specification, "Reserved words").
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(crate) fn parse(source: &Source) -> Result<Parsed, Vec<Issue>> {
    if source.chars.len() > MAX_CODE_POINTS {
        let size = source.chars.len();
        return Err(vec![source.issue(0, format!("expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}"))]);
    }
    let (tokens, unread) = tokens(source);
    let mut parser = Parser { tokens, at: 0, nesting: 0, offsets: vec![0], errors: unread };
    let root = parser.whole();
    let errors = std::mem::take(&mut parser.errors);
    match root {
        Ok(root) if errors.is_empty() => Ok(Parsed { root, offsets: parser.offsets }),
        // One more than are shown: cel-go gives up there.
        _ => Err(errors.into_iter().take(MAX_SHOWN + 1).map(|(offset, message)| source.issue(offset, message)).collect()),
    }
}

/// The error has been noted: stop.
pub(crate) struct Stop;

type Parse<T> = Result<T, Stop>;

pub(crate) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nesting: u32,
    offsets: Vec<u32>,
    errors: Vec<(usize, String)>,
}

/// Binary operators with their strength; `&&`, `||` and `?:` are weaker and stand apart.
fn binary(token: &Token) -> Option<(u8, &'static str)> {
    if token.kind != Tok::Sign {
        return None;
    }
    Some(match token.text.as_str() {
        "<" => (1, "_<_"),
        "<=" => (1, "_<=_"),
        ">=" => (1, "_>=_"),
        ">" => (1, "_>_"),
        "==" => (1, "_==_"),
        "!=" => (1, "_!=_"),
        "in" => (1, "@in"),
        "+" => (2, "_+_"),
        "-" => (2, "_-_"),
        "*" => (3, "_*_"),
        "/" => (3, "_/_"),
        "%" => (3, "_%_"),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn eat(&mut self, sign: &str) -> Option<Token> {
        self.peek().is(sign).then(|| self.take())
    }

    pub(crate) fn error<T>(&mut self, offset: usize, message: impl Into<String>) -> Parse<T> {
        self.errors.push((offset, message.into()));
        Err(Stop)
    }

    fn unexpected<T>(&mut self, wanted: &str) -> Parse<T> {
        let token = self.peek().clone();
        self.error(token.offset, format!("Syntax error: mismatched input '{}' expecting {wanted}", token.shown()))
    }

    fn expect(&mut self, sign: &str) -> Parse<Token> {
        if let Some(token) = self.eat(sign) {
            return Ok(token);
        }
        let token = self.peek().clone();
        self.error(token.offset, format!("Syntax error: missing '{sign}' at '{}'", token.shown()))
    }

    pub(crate) fn id(&mut self, offset: usize) -> Id {
        self.offsets.push(u32::try_from(offset).unwrap_or(u32::MAX));
        u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn offset(&self, id: Id) -> usize {
        self.offsets.get(id as usize).map_or(0, |o| *o as usize)
    }

    /// A node, unless the tree has become too deep.
    fn node(&mut self, offset: usize, kind: Kind) -> Parse<Expr> {
        let id = self.id(offset);
        self.node_of(id, kind)
    }

    fn node_of(&mut self, id: Id, kind: Kind) -> Parse<Expr> {
        let depth = kind.depth();
        if depth > MAX_DEPTH {
            let offset = self.offset(id);
            return self.error(offset, TOO_DEEP);
        }
        Ok(Expr { id, depth, kind })
    }

    fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Parse<Expr> {
        self.node(offset, Kind::Call { function: function.into(), target: None, args })
    }

    fn whole(&mut self) -> Parse<Expr> {
        let root = self.expr()?;
        let token = self.peek().clone();
        if token.kind == Tok::Eof {
            return Ok(root);
        }
        let last = self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Tok::Eof);
        let how = if last { "extraneous" } else { "mismatched" };
        self.error(token.offset, format!("Syntax error: {how} input '{}' expecting <EOF>", token.shown()))
    }

    fn expr(&mut self) -> Parse<Expr> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            let offset = self.peek().offset;
            return self.error(offset, TOO_DEEP);
        }
        let condition = self.junction("||", "_||_")?;
        let parsed = match self.eat("?") {
            None => condition,
            Some(op) => {
                let yes = self.junction("||", "_||_")?;
                self.expect(":")?;
                let no = self.expr()?;
                self.call(op.offset, "_?_:_", vec![condition, yes, no])?
            }
        };
        self.nesting -= 1;
        Ok(parsed)
    }

    /// A chain of `||`, or of `&&`, as a balanced tree.
    fn junction(&mut self, sign: &str, function: &str) -> Parse<Expr> {
        let or = sign == "||";
        let mut terms = vec![if or { self.junction("&&", "_&&_")? } else { self.operation(1)? }];
        let mut places = Vec::new();
        while let Some(op) = self.eat(sign) {
            places.push(op.offset);
            terms.push(if or { self.junction("&&", "_&&_")? } else { self.operation(1)? });
        }
        let mut terms: Vec<Option<Expr>> = terms.into_iter().map(Some).collect();
        if places.is_empty() { terms[0].take().ok_or(Stop) } else { self.balance(&mut terms, &places, 0, places.len() - 1, function) }
    }

    fn balance(&mut self, terms: &mut [Option<Expr>], places: &[usize], low: usize, high: usize, function: &str) -> Parse<Expr> {
        let middle = (low + high).div_ceil(2);
        let left = if middle == low { terms[middle].take().ok_or(Stop)? } else { self.balance(terms, places, low, middle - 1, function)? };
        let right =
            if middle == high { terms[middle + 1].take().ok_or(Stop)? } else { self.balance(terms, places, middle + 1, high, function)? };
        self.call(places[middle], function, vec![left, right])
    }

    /// Operators at least this strong, from the left.
    fn operation(&mut self, strength: u8) -> Parse<Expr> {
        let mut left = self.unary()?;
        while let Some((found, function)) = binary(self.peek()).filter(|(s, _)| *s >= strength) {
            let op = self.take();
            let right = self.operation(found + 1)?;
            left = self.call(op.offset, function, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parse<Expr> {
        let first = self.peek().clone();
        let number = |t: Option<&Token>| t.is_some_and(|t| matches!(t.kind, Tok::Int | Tok::Float));
        if first.is("-") && number(self.tokens.get(self.at + 1)) {
            return self.member();
        }
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            if first.is(sign) {
                let mut odd = false;
                while self.peek().is(sign) {
                    self.take();
                    odd = !odd;
                }
                let operand = self.member()?;
                return if odd { self.call(first.offset, function, vec![operand]) } else { Ok(operand) };
            }
        }
        self.member()
    }

    fn member(&mut self) -> Parse<Expr> {
        let mut target = self.primary()?;
        loop {
            if let Some(dot) = self.eat(".") {
                target = self.select(target, dot.offset)?;
            } else if let Some(open) = self.eat("[") {
                let function = if self.eat("?").is_some() { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                target = self.call(open.offset, function, vec![target, index])?;
            } else {
                return Ok(target);
            }
        }
    }

    fn select(&mut self, target: Expr, dot: usize) -> Parse<Expr> {
        let optional = self.eat("?").is_some();
        let field = self.peek().clone();
        match field.kind {
            Tok::Ident => self.take(),
            Tok::EscapedIdent => return self.error(field.offset, "unsupported syntax: '`'"),
            _ if field.is("in") || field.is("true") || field.is("false") || field.is("null") => {
                let shown = field.shown();
                return self.error(field.offset, format!("Syntax error: no viable alternative at input '.{shown}'"));
            }
            _ if field.kind == Tok::Eof || field.kind == Tok::Sign => {
                let shown = field.shown();
                return self.error(field.offset, format!("Syntax error: no viable alternative at input '.{shown}'"));
            }
            _ => return self.unexpected("IDENTIFIER"),
        };
        let name: Name = field.text.into();
        if optional {
            let name = self.node(field.offset, Kind::Literal(Literal::Str(name)))?;
            return self.call(dot, "_?._", vec![target, name]);
        }
        match self.eat("(") {
            Some(open) => {
                let args = self.arguments()?;
                self.macro_or_call(open.offset, &name, Some(target), args)
            }
            None => self.node(dot, Kind::Select { operand: Box::new(target), field: name, test: false }),
        }
    }

    fn arguments(&mut self) -> Parse<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    fn macro_or_call(&mut self, offset: usize, name: &str, target: Option<Expr>, args: Vec<Expr>) -> Parse<Expr> {
        match macros::expand(self, offset, name, target, args)? {
            macros::Expanded::Yes(kind) => self.node(offset, kind),
            macros::Expanded::No(target, args) => {
                self.node(offset, Kind::Call { function: name.into(), target: target.map(Box::new), args })
            }
        }
    }

    fn primary(&mut self) -> Parse<Expr> {
        let token = self.peek().clone();
        match token.kind {
            Tok::Ident => self.named(token.offset, String::new()),
            Tok::Int | Tok::Uint | Tok::Float | Tok::Str | Tok::Bytes => {
                self.take();
                self.literal(&token, false)
            }
            Tok::Sign => match token.text.as_str() {
                "(" => {
                    self.take();
                    let inner = self.expr()?;
                    self.expect(")")?;
                    Ok(inner)
                }
                "[" => self.list(),
                "{" => self.map(),
                "." => {
                    self.take();
                    if self.peek().kind == Tok::Ident { self.named(token.offset, ".".into()) } else { self.unexpected("IDENTIFIER") }
                }
                "-" => {
                    self.take();
                    let number = self.peek().clone();
                    if !matches!(number.kind, Tok::Int | Tok::Float) {
                        return self.error(number.offset, format!("Syntax error: no viable alternative at input '-{}'", number.shown()));
                    }
                    self.take();
                    self.literal(&Token { offset: token.offset, ..number }, true)
                }
                "true" | "false" => {
                    self.take();
                    self.node(token.offset, Kind::Literal(Literal::Bool(token.text == "true")))
                }
                "null" => {
                    self.take();
                    self.node(token.offset, Kind::Literal(Literal::Null))
                }
                _ => self.unexpected(WANTED),
            },
            Tok::EscapedIdent | Tok::Eof => self.unexpected(WANTED),
        }
    }

    fn literal(&mut self, token: &Token, negative: bool) -> Parse<Expr> {
        match literal::read(token, negative) {
            Ok(literal) => self.node(token.offset, Kind::Literal(literal)),
            Err(why) => self.error(token.offset, why),
        }
    }

    /// An identifier, a call, or the name of a type that is constructed.
    fn named(&mut self, offset: usize, lead: String) -> Parse<Expr> {
        if let Some(name) = self.type_name() {
            return self.construct(format!("{lead}{name}"));
        }
        let token = self.take();
        if RESERVED.contains(&token.text.as_str()) {
            return self.error(token.offset, format!("reserved identifier: {}", token.text));
        }
        let name = format!("{lead}{}", token.text);
        match self.eat("(") {
            Some(open) => {
                let args = self.arguments()?;
                self.macro_or_call(open.offset, &name, None, args)
            }
            None => self.node(if lead.is_empty() { token.offset } else { offset }, Kind::Ident(name.into())),
        }
    }

    /// `a.b.c` directly before `{`, taken; or nothing taken.
    fn type_name(&mut self) -> Option<String> {
        let mut at = self.at;
        let mut name = String::new();
        loop {
            let token = self.tokens.get(at).filter(|t| t.kind == Tok::Ident)?;
            name.push_str(&token.text);
            let next = self.tokens.get(at + 1)?;
            if next.is("{") {
                self.at = at + 1;
                return Some(name);
            }
            if !next.is(".") {
                return None;
            }
            name.push('.');
            at += 2;
        }
    }

    fn construct(&mut self, name: String) -> Parse<Expr> {
        let open = self.expect("{")?;
        let id = self.id(open.offset);
        let mut fields = Vec::new();
        while self.eat("}").is_none() {
            let optional = self.eat("?").is_some();
            let field = self.peek().clone();
            if field.kind != Tok::Ident {
                return self.unexpected("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}");
            }
            self.take();
            let colon = self.expect(":")?;
            let field_id = self.id(colon.offset);
            let value = self.expr()?;
            fields.push(FieldEntry { id: field_id, name: field.text.into(), value, optional });
            if self.eat(",").is_none() && !self.peek().is("}") {
                self.expect("}")?;
            }
        }
        self.node_of(id, Kind::Struct { name: name.into(), fields })
    }

    fn list(&mut self) -> Parse<Expr> {
        let open = self.take();
        let id = self.id(open.offset);
        let (mut elements, mut optional) = (Vec::new(), Vec::new());
        while self.eat("]").is_none() {
            if self.eat("?").is_some() {
                optional.push(elements.len());
            }
            elements.push(self.expr()?);
            if self.eat(",").is_none() && !self.peek().is("]") {
                self.expect("]")?;
            }
        }
        self.node_of(id, Kind::List { elements, optional })
    }

    fn map(&mut self) -> Parse<Expr> {
        let open = self.take();
        let id = self.id(open.offset);
        let mut entries = Vec::new();
        while self.eat("}").is_none() {
            let optional = self.eat("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(MapEntry { key, value, optional });
            if self.eat(",").is_none() && !self.peek().is("}") {
                self.expect("}")?;
            }
        }
        self.node_of(id, Kind::Map(entries))
    }

    /// A node that a macro makes, where the macro stands.
    pub(crate) fn made(&mut self, offset: usize, kind: Kind) -> Parse<Expr> {
        self.node(offset, kind)
    }

    /// The same tree with ids of its own.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        let offset = self.offset(expr.id);
        expr.id = self.id(offset);
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.renumber(operand),
            Kind::Call { target, args, .. } => {
                target.iter_mut().for_each(|t| self.renumber(t));
                args.iter_mut().for_each(|a| self.renumber(a));
            }
            Kind::List { elements, .. } => elements.iter_mut().for_each(|e| self.renumber(e)),
            Kind::Map(entries) => entries.iter_mut().for_each(|e| {
                self.renumber(&mut e.key);
                self.renumber(&mut e.value);
            }),
            Kind::Struct { fields, .. } => fields.iter_mut().for_each(|f| self.renumber(&mut f.value)),
            Kind::Comprehension(c) => {
                [&mut c.range, &mut c.init, &mut c.condition, &mut c.step, &mut c.result].into_iter().for_each(|e| self.renumber(e));
            }
        }
    }
}

impl From<&str> for Literal {
    fn from(text: &str) -> Literal {
        Literal::Str(Arc::from(text))
    }
}
