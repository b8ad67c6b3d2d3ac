//! JSONPath as definitions use it: where a column, a selectable field or a replica count lies in an object.
//!
//! Rules
//!   R1 steps       `.field`, `['field']`, `[0]`, `[-1]`, `[0:2]`, `[*]` and `.*`, `[?(@.a=="b")]` with == != < <= > >=,
//!                  and `..field` at any depth; `\.` is a dot inside a field's name
//!   R2 missing     what is not there is no result, never an error
//!   R3 simple      a simple path is fields only, from the object's root
//! Source: "JSONPath Support", the part that printer columns use.

use serde_json::Value;

/// Steps of one path.
const STEPS_MAX: usize = 64;
/// Values one path may give: a column shows the first.
const RESULTS_MAX: usize = 1024;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Each,
    Below(String),
    Where(Vec<Step>, Option<(Compare, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// R3: the field names of a simple path; `None` for any other.
pub(crate) fn simple(text: &str) -> Option<Vec<String>> {
    let JsonPath(steps) = JsonPath::parse(text).ok()?;
    let name = |step: Step| match step {
        Step::Field(name) => Some(name),
        _ => None,
    };
    steps.into_iter().map(name).collect::<Option<Vec<String>>>().filter(|names| !names.is_empty())
}

impl JsonPath {
    /// Reads a path that begins with `.` or `[`.
    pub(crate) fn parse(text: &str) -> Result<JsonPath, String> {
        let mut reader = Reader { rest: text };
        let steps = reader.steps(|_| false)?;
        if steps.is_empty() {
            return Err("expected a path such as .spec.replicas, found nothing".to_owned());
        }
        Ok(JsonPath(steps))
    }

    /// The values at the path, in order.
    pub(crate) fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        find(&self.0, object)
    }
}

fn find<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            advance(step, value, &mut next);
            if next.len() >= RESULTS_MAX {
                break;
            }
        }
        found = next;
    }
    found
}

fn advance<'a>(step: &Step, value: &'a Value, out: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Field(name), value) => out.extend(value.get(name)),
        (Step::Index(index), Value::Array(items)) => {
            out.extend(place(*index, items.len()).and_then(|at| items.get(at)))
        }
        (Step::Slice(from, to), Value::Array(items)) => {
            let at = |index: &Option<i64>, other: usize| index.map_or(Some(other), |index| place(index, items.len()));
            let (from, to) = (at(from, 0).unwrap_or(0), at(to, items.len()).unwrap_or(items.len()).min(items.len()));
            out.extend(items.iter().take(to).skip(from));
        }
        (Step::Each, Value::Array(items)) => out.extend(items.iter().take(RESULTS_MAX)),
        (Step::Each, Value::Object(fields)) => out.extend(fields.values().take(RESULTS_MAX)),
        (Step::Where(path, test), Value::Array(items)) => {
            out.extend(items.iter().filter(|item| holds(path, test.as_ref(), item)).take(RESULTS_MAX));
        }
        (Step::Below(name), value) => below(name, value, out),
        _ => {}
    }
}

fn below<'a>(name: &str, value: &'a Value, out: &mut Vec<&'a Value>) {
    if out.len() >= RESULTS_MAX {
        return;
    }
    out.extend(value.get(name));
    match value {
        Value::Array(items) => items.iter().for_each(|item| below(name, item, out)),
        Value::Object(fields) => fields.values().for_each(|field| below(name, field, out)),
        _ => {}
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    usize::try_from(if index < 0 { index + length as i64 } else { index }).ok()
}

fn holds(path: &[Step], test: Option<&(Compare, Value)>, item: &Value) -> bool {
    let found = find(path, item);
    let Some((compare, wanted)) = test else { return !found.is_empty() };
    let order = found.first().and_then(|found| match (found, wanted) {
        (Value::String(a), Value::String(b)) => Some(a.as_str().cmp(b.as_str())),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) => a.as_f64()?.partial_cmp(&b.as_f64()?),
    });
    order.is_some_and(|order| match compare {
        Compare::Is => order.is_eq(),
        Compare::IsNot => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::AtMost => order.is_le(),
        Compare::More => order.is_gt(),
        Compare::AtLeast => order.is_ge(),
    })
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn steps(&mut self, ends: impl Fn(&str) -> bool) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        while !self.rest.is_empty() && !ends(self.rest) {
            if steps.len() == STEPS_MAX {
                return Err(format!("expected at most {STEPS_MAX} steps"));
            }
            steps.push(self.step()?);
        }
        Ok(steps)
    }

    fn step(&mut self) -> Result<Step, String> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            self.rest = rest;
            return Ok(Step::Below(self.name()?));
        }
        if let Some(rest) = self.rest.strip_prefix(".*") {
            self.rest = rest;
            return Ok(Step::Each);
        }
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            return self.name().map(Step::Field);
        }
        if let Some(rest) = self.rest.strip_prefix('[') {
            self.rest = rest;
            return self.bracket();
        }
        Err(format!("expected . or [ in the path, found {:?}", cut(self.rest)))
    }

    /// A field's name, up to what begins the next step.
    fn name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, next)) = chars.next() {
            match next {
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                '.' | '[' | ']' | '(' | ')' | '=' | '!' | '<' | '>' | ' ' | '\'' | '"' | ',' | '{' | '}' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err(format!("expected a field's name, found {:?}", cut(self.rest))) } else { Ok(name) }
    }

    fn bracket(&mut self) -> Result<Step, String> {
        if let Some(rest) = self.rest.strip_prefix("?(") {
            self.rest = rest;
            let step = self.filter()?;
            self.expect(")]")?;
            return Ok(step);
        }
        let end = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.rest[1..].find(quote).map(|end| end + 2),
            _ => self.rest.find(']'),
        };
        let inner = end.map(|end| self.rest.split_at(end));
        let (inner, rest) = inner.ok_or_else(|| format!("expected ] after {:?}", cut(self.rest)))?;
        self.rest = rest;
        self.expect("]")?;
        let number = |text: &str| {
            text.trim().parse::<i64>().map_err(|_| format!("expected a number in [], found {:?}", cut(text)))
        };
        match inner.trim() {
            "*" => Ok(Step::Each),
            quoted if quoted.starts_with(['\'', '"']) => Ok(Step::Field(quoted[1..quoted.len() - 1].to_owned())),
            slice if slice.contains(':') => {
                let (from, to) = slice.split_once(':').expect("it contains one");
                let bound = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
                Ok(Step::Slice(bound(from)?, bound(to)?))
            }
            index => number(index).map(Step::Index),
        }
    }

    /// What stands inside `[?( )]`.
    fn filter(&mut self) -> Result<Step, String> {
        self.rest = self.rest.trim_start();
        self.expect("@")?;
        let path = self.steps(|rest| !rest.starts_with(['.', '[']))?;
        self.rest = self.rest.trim_start();
        const SIGNS: [(&str, Compare); 6] = [
            ("==", Compare::Is),
            ("!=", Compare::IsNot),
            ("<=", Compare::AtMost),
            (">=", Compare::AtLeast),
            ("<", Compare::Less),
            (">", Compare::More),
        ];
        let Some((sign, compare)) = SIGNS.into_iter().find(|(sign, _)| self.rest.starts_with(sign)) else {
            return Ok(Step::Where(path, None));
        };
        self.rest = self.rest[sign.len()..].trim_start();
        let value = self.literal()?;
        self.rest = self.rest.trim_start();
        Ok(Step::Where(path, Some((compare, value))))
    }

    fn literal(&mut self) -> Result<Value, String> {
        if let Some(quote) = self.rest.chars().next().filter(|first| matches!(first, '\'' | '"')) {
            let end = self.rest[1..].find(quote).ok_or("expected the end of a text")?;
            let text = &self.rest[1..=end];
            self.rest = &self.rest[end + 2..];
            return Ok(Value::from(text));
        }
        let end = self.rest.find([')', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(word).map_err(|_| format!("expected a text, number or bool, found {:?}", cut(word)))
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(format!("expected {sign:?} in the path, found {:?}", cut(self.rest))),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::{JsonPath, simple};
    use serde_json::{Value, json};

    #[test]
    fn r1_and_r2_paths_find_what_is_there() {
        let object = json!({
            "spec": {"a": 1, "b.c": "x", "list": [{"type": "Ready", "n": 1}, {"type": "Other", "n": 2}]},
            "metadata": {"annotations": {"example.com/a": "y"}},
        });
        for (path, expected) in [
            (".spec.a", json!([1])),
            (".spec.b\\.c", json!(["x"])),
            (".spec['b.c']", json!(["x"])),
            (".metadata.annotations.example\\.com/a", json!(["y"])),
            (".spec.list[0].n", json!([1])),
            (".spec.list[-1].n", json!([2])),
            (".spec.list[0:1].n", json!([1])),
            (".spec.list[*].n", json!([1, 2])),
            (".spec.list[?(@.type==\"Ready\")].n", json!([1])),
            (".spec.list[?(@.type=='Other')].n", json!([2])),
            (".spec.list[?(@.n>1)].type", json!(["Other"])),
            (".spec.list[?(@.n)].type", json!(["Ready", "Other"])),
            ("..type", json!(["Ready", "Other"])),
            (".spec.none.more", json!([])),
            (".spec.a.b", json!([])),
        ] {
            let found = JsonPath::parse(path).expect(path);
            let found: Vec<Value> = found.find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), expected, "{path}");
        }
        for path in ["", "spec", ".", ".a[", ".a[x]", ".a[?(b)]", ".a[?(@.b=='c)]", ".a b", &".a".repeat(100)] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn r3_a_simple_path_is_fields_only() {
        assert_eq!(simple(".spec.replicas"), Some(vec!["spec".to_owned(), "replicas".to_owned()]));
        assert_eq!((simple(".spec[0]"), simple("spec"), simple("")), (None, None, None));
    }
}
