//! JSONPath templates as kubectl knows them: `{.items[*].metadata.name}`, `{range …}…{end}`, text between braces.
//!
//! Rules
//!   R1 text      what stands outside braces, and quoted text inside them, is printed as it is
//!   R2 join      the results of one pair of braces are joined by blanks
//!   R3 range     `{range PATH}` prints what follows up to `{end}` once for each result
//!   R4 missing   a field that is not there has no result; whoever asks strictly gets an error
//!   R5 value     text is printed bare, objects and lists as JSON on one line
//! Not here       regular expressions and functions
//! Source: kubectl reference, "JSONPath Support"

use anyhow::{Result, bail};
use serde_json::Value;

use super::json;

/// Templates and paths longer than this are not read.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
/// How deep `{range}` may nest.
const RANGE_DEPTH_MAX: usize = 32;

/// A template, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

/// One path into an object, such as `.spec.replicas`.
#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Root,
    Field(String),
    /// Several fields or indexes, in this order.
    Union(Vec<Step>),
    Slice(Option<i64>, Option<i64>, usize),
    All,
    /// Every value at any depth.
    Deep,
    Filter(Operand, Option<(Comparison, Operand)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Path),
    Value(Value),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Template> {
        if text.len() > TEMPLATE_BYTES_MAX {
            bail!("error parsing jsonpath: expected at most {TEMPLATE_BYTES_MAX} bytes, found {}", text.len());
        }
        let mut stack: Vec<(Option<Path>, Vec<Node>)> = vec![(None, Vec::new())];
        let mut rest = text;
        while !rest.is_empty() {
            let Some(open) = rest.find('{') else {
                push(&mut stack, Node::Text(rest.to_owned()));
                break;
            };
            if open > 0 {
                push(&mut stack, Node::Text(rest[..open].to_owned()));
            }
            let inside = &rest[open + 1..];
            let Some(close) = closing_brace(inside) else { bail!("error parsing jsonpath {text}, unclosed action") };
            read_action(inside[..close].trim(), &mut stack)?;
            rest = &inside[close + 1..];
        }
        match stack.pop() {
            Some((None, nodes)) => Ok(Template(nodes)),
            _ => bail!("error parsing jsonpath {text}, expected {{end}} for every {{range}}"),
        }
    }

    /// Prints an object by the template.
    pub fn print(&self, object: &Value, strict: bool) -> Result<String> {
        let mut out = String::new();
        print_nodes(&self.0, object, object, strict, &mut out)?;
        Ok(out)
    }

    /// All that the template's paths lead to, as a list.
    pub fn results(&self, object: &Value) -> Result<Value> {
        let mut found = Vec::new();
        collect(&self.0, object, object, &mut found)?;
        Ok(Value::Array(found))
    }
}

fn collect(nodes: &[Node], object: &Value, root: &Value, results: &mut Vec<Value>) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Path(path) => results.extend(path.find(object, root, false)?.into_iter().cloned()),
            Node::Range(path, body) => {
                for item in path.find(object, root, false)? {
                    collect(body, item, root, results)?;
                }
            }
        }
    }
    Ok(())
}

fn push(stack: &mut [(Option<Path>, Vec<Node>)], node: Node) {
    stack.last_mut().expect("the outermost list stays").1.push(node);
}

fn read_action(action: &str, stack: &mut Vec<(Option<Path>, Vec<Node>)>) -> Result<()> {
    if action == "end" {
        let (range, body) = stack.pop().expect("the outermost list stays");
        let Some(range) = range else { bail!("error parsing jsonpath, not in range") };
        push(stack, Node::Range(range, body));
        return Ok(());
    }
    if let Some(path) = action.strip_prefix("range").filter(|rest| rest.starts_with([' ', '.', '['])) {
        if stack.len() > RANGE_DEPTH_MAX {
            bail!("error parsing jsonpath, expected at most {RANGE_DEPTH_MAX} ranges inside each other");
        }
        stack.push((Some(Path::parse(path.trim())?), Vec::new()));
        return Ok(());
    }
    if let Some(quote) = action.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let inner = action.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let Some(inner) = inner else { bail!("error parsing jsonpath, unterminated quoted string: {action}") };
        push(stack, Node::Text(unquote(inner)));
        return Ok(());
    }
    push(stack, Node::Path(Path::parse(action)?));
    Ok(())
}

fn print_nodes(nodes: &[Node], object: &Value, root: &Value, strict: bool, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(path) => {
                let found = path.find(object, root, strict)?;
                let texts: Vec<String> = found.into_iter().map(text_of).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(path, body) => {
                for item in path.find(object, root, strict)? {
                    print_nodes(body, item, root, strict, out)?;
                }
            }
        }
    }
    Ok(())
}

/// R5.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => json::compact(other),
    }
}

impl Path {
    /// Reads a path: `.a.b[0]`, with or without a leading `$`, `@` or point.
    pub fn parse(text: &str) -> Result<Path> {
        let mut reader = Reader { text, at: 0 };
        let steps = reader.steps()?;
        match reader.rest() {
            "" => Ok(Path(steps)),
            rest => bail!("error parsing jsonpath {text}, unexpected {rest:?}"),
        }
    }

    /// Reads a path that people write in short: `metadata.name`, `.metadata.name` or `{.metadata.name}`.
    pub fn relaxed(text: &str) -> Result<Path> {
        let bare = text.trim();
        let bare = bare.strip_prefix('{').and_then(|bare| bare.strip_suffix('}')).unwrap_or(bare).trim();
        if bare.is_empty() || bare.contains(['{', '}']) {
            bail!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}'"
            );
        }
        if bare.starts_with(['.', '[', '$', '@']) { Path::parse(bare) } else { Path::parse(&format!(".{bare}")) }
    }

    /// The values that the path leads to.
    pub fn find<'v>(&self, from: &'v Value, root: &'v Value, strict: bool) -> Result<Vec<&'v Value>> {
        let mut found = vec![from];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, root, strict, &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }

    /// The first value, if there is one.
    pub fn first<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        self.find(object, object, false).ok()?.into_iter().next()
    }
}

impl Step {
    fn apply<'v>(&self, value: &'v Value, root: &'v Value, strict: bool, found: &mut Vec<&'v Value>) -> Result<()> {
        match self {
            Step::Root => found.push(root),
            Step::Field(name) => match value.get(name) {
                Some(inner) => found.push(inner),
                None if strict => bail!("{name} is not found"),
                None => {}
            },
            Step::Union(steps) => {
                for step in steps {
                    step.apply(value, root, strict, found)?;
                }
            }
            Step::Slice(from, to, every) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let chosen = slice(items.len(), *from, *to);
                if strict && chosen.is_empty() {
                    bail!("array index out of bounds: index {}, length {}", from.unwrap_or(0), items.len());
                }
                found.extend(items[chosen].iter().step_by(*every));
            }
            Step::All => match value {
                Value::Array(items) => found.extend(items),
                Value::Object(map) => found.extend(map.values()),
                _ => {}
            },
            Step::Deep => deep(value, found),
            Step::Filter(left, test) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                found.extend(items.iter().filter(|item| holds(left, test.as_ref(), item, root)));
            }
        }
        Ok(())
    }
}

fn deep<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    found.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, found)),
        Value::Object(map) => map.values().for_each(|item| deep(item, found)),
        _ => {}
    }
}

fn slice(length: usize, from: Option<i64>, to: Option<i64>) -> std::ops::Range<usize> {
    let place = |index: i64| (if index < 0 { index + length as i64 } else { index }).clamp(0, length as i64) as usize;
    let from = place(from.unwrap_or(0));
    let to = to.map_or(length, place);
    from..to.max(from)
}

fn holds(left: &Operand, test: Option<&(Comparison, Operand)>, item: &Value, root: &Value) -> bool {
    let value = |operand: &Operand| match operand {
        Operand::Value(value) => Some(value.clone()),
        Operand::Path(path) => path.find(item, root, false).ok()?.first().map(|value| (*value).clone()),
    };
    let Some((comparison, right)) = test else { return value(left).is_some() };
    let (Some(left), Some(right)) = (value(left), value(right)) else { return false };
    let order = match (&left, &right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order.is_some_and(|order| order.is_eq()),
        Comparison::Unequal => order.is_none_or(|order| order.is_ne()),
        Comparison::Less => order.is_some_and(|order| order.is_lt()),
        Comparison::AtMost => order.is_some_and(|order| order.is_le()),
        Comparison::Greater => order.is_some_and(|order| order.is_gt()),
        Comparison::AtLeast => order.is_some_and(|order| order.is_ge()),
    }
}

/// Where the brace that is open ends, quoted braces not counted.
fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn unquote(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('r') => plain.push('\r'),
                Some(other) => plain.push(other),
                None => {}
            },
            other => plain.push(other),
        }
    }
    plain
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn steps(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if self.take("$") {
            steps.push(Step::Root);
        } else {
            self.take("@");
        }
        loop {
            if self.take("..") {
                steps.push(Step::Deep);
                if !self.rest().starts_with('[') {
                    steps.push(self.name());
                }
            } else if self.take(".") {
                // `.` alone is the object itself
                if !self.rest().is_empty() && !self.rest().starts_with('[') {
                    steps.push(self.name());
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn name(&mut self) -> Step {
        let mut name = String::new();
        let mut characters = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
                '.' | '[' | ']' | ')' | ' ' | '=' | '!' | '<' | '>' | ',' | '{' | '}' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        self.at += end;
        if name == "*" { Step::All } else { Step::Field(name) }
    }

    fn bracket(&mut self) -> Result<Step> {
        if self.take("?(") {
            let left = self.operand()?;
            let comparison = self.comparison();
            let test = match comparison {
                Some(comparison) => Some((comparison, self.operand()?)),
                None => None,
            };
            self.blanks();
            if !self.take(")") || !self.take("]") {
                bail!("error parsing jsonpath {}, unterminated filter", self.text);
            }
            return Ok(Step::Filter(left, test));
        }
        let mut steps = Vec::new();
        loop {
            self.blanks();
            steps.push(self.subscript()?);
            self.blanks();
            if self.take("]") {
                let single = steps.len() == 1;
                return Ok(if single { steps.remove(0) } else { Step::Union(steps) });
            }
            if !self.take(",") {
                bail!("error parsing jsonpath {}, unterminated array", self.text);
            }
        }
    }

    fn subscript(&mut self) -> Result<Step> {
        if self.take("*") {
            return Ok(Step::All);
        }
        if let Some(text) = self.quoted()? {
            return Ok(Step::Field(text));
        }
        let end = self.rest().find([']', ',']).unwrap_or(self.rest().len());
        let text = self.rest()[..end].trim();
        self.at += end;
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let number = |text: &str| match text {
            "" => Ok(None),
            digits => digits.parse::<i64>().map(Some).map_err(|_| anyhow::anyhow!("invalid array index {text}")),
        };
        match parts.as_slice() {
            [one] => {
                let Some(index) = number(one)? else { bail!("invalid array index {text}") };
                Ok(Step::Slice(Some(index), if index == -1 { None } else { Some(index + 1) }, 1))
            }
            [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
            [from, to, every] => {
                let every = number(every)?.unwrap_or(1);
                let Some(every) = usize::try_from(every).ok().filter(|every| *every > 0) else {
                    bail!("step must be > 0");
                };
                Ok(Step::Slice(number(from)?, number(to)?, every))
            }
            _ => bail!("invalid array index {text}"),
        }
    }

    fn quoted(&mut self) -> Result<Option<String>> {
        let Some(quote) = self.rest().chars().next().filter(|first| matches!(first, '"' | '\'')) else {
            return Ok(None);
        };
        let inner = &self.rest()[1..];
        let mut escaped = false;
        for (at, character) in inner.char_indices() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                end if end == quote => {
                    self.at += at + 2;
                    return Ok(Some(unquote(&inner[..at])));
                }
                _ => {}
            }
        }
        bail!("error parsing jsonpath {}, unterminated quoted string", self.text)
    }

    fn operand(&mut self) -> Result<Operand> {
        self.blanks();
        if let Some(text) = self.quoted()? {
            return Ok(Operand::Value(Value::String(text)));
        }
        if self.rest().starts_with(['@', '$', '.']) {
            return Ok(Operand::Path(Path(self.steps()?)));
        }
        let end = self.rest().find([')', ' ', '=', '!', '<', '>']).unwrap_or(self.rest().len());
        let word = &self.rest()[..end];
        self.at += end;
        match serde_json::from_str(word) {
            Ok(value) => Ok(Operand::Value(value)),
            Err(_) => bail!("error parsing jsonpath {}, unrecognized identifier {word}", self.text),
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        const ALL: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        self.blanks();
        ALL.into_iter().find(|(sign, _)| self.take(sign)).map(|(_, comparison)| comparison)
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Template};
    use serde_json::{Value, json};

    fn list() -> Value {
        json!({"items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "n": 1},
            {"metadata": {"name": "b"}, "n": 2, "c": [{"type": "Ready", "status": "True"}, {"type": "Other"}]},
            {"metadata": {"name": "c"}, "n": 3}
        ], "kind": "List"})
    }

    fn check(template: &str, expected: &str) {
        let printed = Template::parse(template).and_then(|template| template.print(&list(), false));
        assert_eq!(printed.expect(template), expected, "{template}");
    }

    #[test]
    fn paths_lead_to_values() {
        check("{.kind}", "List");
        check("{.items[*].metadata.name}", "a b c");
        check("{.items[0].metadata.name}", "a");
        check("{.items[-1].metadata.name}", "c");
        check("{.items[0:2].n}", "1 2");
        check("{.items[::2].n}", "1 3");
        check("{.items[0,2].n}", "1 3");
        check("{$.kind}", "List");
        check("{..name}", "a b c");
        check("{.items[0]['metadata']}", r#"{"labels":{"app.kubernetes.io/name":"x"},"name":"a"}"#);
        check(r"{.items[0].metadata.labels.app\.kubernetes\.io/name}", "x");
        check("{.items[*]['metadata.name', 'n']}", "1 2 3");
        check("{.missing.field}", "");
    }

    #[test]
    fn text_and_ranges_are_printed() {
        check(r#"{range .items[*]}{.metadata.name}={.n}{"\n"}{end}done"#, "a=1\nb=2\nc=3\ndone");
        check(r#"{range .items[*]}[{.metadata.name}, {.n}] {end}"#, "[a, 1] [b, 2] [c, 3] ");
        check(r#"kind: {.kind}{'\t'}|{"}"}"#, "kind: List\t|}");
    }

    #[test]
    fn filters_choose_items() {
        check("{.items[?(@.n>1)].metadata.name}", "b c");
        check(r#"{.items[?(@.metadata.name=="b")].n}"#, "2");
        check(r#"{.items[?(@.metadata.name != 'b')].n}"#, "1 3");
        check(r#"{.items[*].c[?(@.type=="Ready")].status}"#, "True");
        check("{.items[?(@.c)].n}", "2");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["{.a", "{range .items[*]}{.a}", "{end}", "{.a[}", "{.a[?(@.b==)]}", "{\"open}", "{.a[x]}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        let strict = Template::parse("{.nothing}").and_then(|template| template.print(&list(), true));
        assert_eq!(strict.expect_err("strict").to_string(), "nothing is not found");
    }

    #[test]
    fn short_paths_are_taken() {
        for text in ["kind", ".kind", "{.kind}", "{kind}"] {
            assert_eq!(Path::relaxed(text).expect(text).first(&list()), Some(&json!("List")));
        }
        assert!(Path::relaxed("{.a}{.b}").is_err());
    }
}
