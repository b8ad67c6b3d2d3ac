//! Reads the text form of a schema table; the form is described in the parent module.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Field, Form, Merging, MessageId, Package, Rare, Row, Schema, Shape, Type};

/// Why a text is not a schema table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A line that is not a package, message or field.
    #[error("schema table, line {line}: expected {expected}, found {found:?}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A field's type is no message of the table.
    #[error("schema table: field {field:?} of {message:?} has the type {found:?}, which the table does not hold")]
    UnknownType {
        /// The message's name.
        message: String,
        /// The field's name.
        field: String,
        /// The type as written.
        found: String,
    },
    /// Two fields of a message have one tag or one JSON name.
    #[error("schema table: message {message:?} has two fields with {what}")]
    Twice {
        /// The message's name.
        message: String,
        /// The tag or name that appears twice.
        what: String,
    },
    /// More messages or fields than the table can number.
    #[error("schema table: expected at most {MAX} messages and fields, found more; raise the width of MessageId", MAX = u16::MAX)]
    TooLarge,
}

struct Parser {
    schema: Schema,
    short_names: BTreeMap<&'static str, u16>,
    /// Type names as written, one for each field.
    type_names: Vec<&'static str>,
    /// First field of each message; one more at the end.
    first_field: Vec<u16>,
}

pub(super) fn parse(text: &'static str) -> Result<Schema, SchemaError> {
    let mut parser = Parser {
        schema: Schema { packages: Vec::new(), fields: Vec::new(), messages: Vec::new(), by_name: Vec::new() },
        short_names: BTreeMap::new(),
        type_names: Vec::new(),
        first_field: Vec::new(),
    };
    for (index, line) in text.lines().enumerate() {
        let result = match line.as_bytes().first() {
            None | Some(b'#') => Ok(()),
            Some(b' ') => parser.field(&line[1..]),
            Some(_) if line.starts_with("package ") => parser.package(&line["package ".len()..]),
            Some(_) => parser.message(line),
        };
        result.map_err(|expected| SchemaError::Line { line: index + 1, expected, found: line.to_owned() })?;
    }
    parser.finish()
}

impl Parser {
    fn package(&mut self, line: &'static str) -> Result<(), &'static str> {
        let mut words = line.split(' ');
        let name = words.next().ok_or("a package name")?;
        let api_version = words.next().ok_or("a group version, or -")?;
        let api_version = if api_version == "-" { "" } else { api_version };
        let at = u16::try_from(self.schema.packages.len()).map_err(|_| "fewer packages")?;
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some("as"), Some(short)) => drop(self.short_names.insert(short, at)),
            _ => return Err("as and a short name"),
        }
        self.schema.packages.push(Package { name: Cow::Borrowed(name), api_version: Cow::Borrowed(api_version) });
        Ok(())
    }

    fn message(&mut self, line: &'static str) -> Result<(), &'static str> {
        let Some(package) = self.schema.packages.len().checked_sub(1) else { return Err("a package line first") };
        let mut words = line.split(' ');
        let name = words.next().ok_or("a message name")?;
        let (mut kind, mut atomic) = (false, false);
        for flag in words {
            match flag {
                "kind" => kind = true,
                "atomic" => atomic = true,
                _ => return Err("the message flags kind, atomic"),
            }
        }
        let form = form_of(&self.schema.packages[package].name, name);
        self.first_field.push(u16::try_from(self.schema.fields.len()).map_err(|_| "fewer fields")?);
        self.schema.messages.push(Row {
            package: package as u16,
            name: Cow::Borrowed(name),
            form,
            kind,
            atomic,
            open: false,
            custom: false,
            wire: Box::default(),
            json: Box::default(),
        });
        Ok(())
    }

    fn field(&mut self, line: &'static str) -> Result<(), &'static str> {
        if self.schema.messages.is_empty() {
            return Err("a message line first");
        }
        let (line, default) = match line.split_once(" default=") {
            Some((line, default)) => (line, Some(Cow::Borrowed(default))),
            None => (line, None),
        };
        let mut words = line.split(' ');
        let name = words.next().ok_or("a field name")?;
        let tag = words.next().and_then(|word| word.parse().ok()).ok_or("a protobuf tag")?;
        let written = words.next().ok_or("a type")?;
        let (shape, pointer, of) = match written.split_at_checked(2) {
            Some(("[]", of)) => (Shape::List, false, of),
            Some(("{}", of)) => (Shape::Map, false, of),
            _ => (Shape::One, written.starts_with('*'), written.trim_start_matches('*')),
        };
        let mut field = Field {
            name: Cow::Borrowed(name),
            tag,
            shape,
            of: Type::String,
            inline: false,
            required: false,
            pointer,
            merging: Merging::Unsaid,
            merge: false,
            retain_keys: false,
            replace: false,
            rare: None,
        };
        let mut rare = Rare { default, ..Rare::default() };
        for flag in words {
            set_flag(&mut field, &mut rare, flag)?;
        }
        if rare.default.is_some() || rare.merge_key.is_some() || !rare.keys.is_empty() {
            field.rare = Some(Box::new(rare));
        }
        self.schema.fields.push(field);
        self.type_names.push(of);
        Ok(())
    }

    fn finish(mut self) -> Result<Schema, SchemaError> {
        if self.schema.messages.len() >= usize::from(u16::MAX) || self.schema.fields.len() >= usize::from(u16::MAX) {
            return Err(SchemaError::TooLarge);
        }
        self.first_field.push(self.schema.fields.len() as u16);
        let mut by_name: Vec<u16> = (0..self.schema.messages.len() as u16).collect();
        let key = |at: &u16| {
            let row = &self.schema.messages[usize::from(*at)];
            (&self.schema.packages[usize::from(row.package)].name, &row.name)
        };
        by_name.sort_by(|a, b| key(a).cmp(&key(b)));
        self.schema.by_name = by_name;
        self.resolve_types()?;
        for message in 0..self.schema.messages.len() {
            let own: Vec<u16> = (self.first_field[message]..self.first_field[message + 1]).collect();
            let json = self.json_fields(&own, 0);
            self.index(message, own, json)?;
        }
        Ok(self.schema)
    }

    fn resolve_types(&mut self) -> Result<(), SchemaError> {
        for message in 0..self.schema.messages.len() {
            let package = self.schema.messages[message].package;
            for field in self.first_field[message]..self.first_field[message + 1] {
                let written = self.type_names[usize::from(field)];
                let Some(found) = self.resolve(package, written) else {
                    return Err(SchemaError::UnknownType {
                        message: self.schema.messages[message].name.to_string(),
                        field: self.schema.fields[usize::from(field)].name.to_string(),
                        found: written.to_owned(),
                    });
                };
                self.schema.fields[usize::from(field)].of = found;
            }
        }
        Ok(())
    }

    fn resolve(&self, package: u16, written: &str) -> Option<Type> {
        let package_name = |at: u16| self.schema.packages[usize::from(at)].name.as_ref();
        let message = match (written, written.rsplit_once('.')) {
            ("string", _) => return Some(Type::String),
            ("bool", _) => return Some(Type::Bool),
            ("int32", _) => return Some(Type::Int32),
            ("int64", _) => return Some(Type::Int64),
            ("double", _) => return Some(Type::Double),
            ("bytes", _) => return Some(Type::Bytes),
            (name, None) => self.find(package_name(package), name),
            (_, Some((other, name))) => match self.short_names.get(other) {
                Some(at) => self.find(package_name(*at), name),
                None => self.find(other, name),
            },
        };
        message.map(Type::Message)
    }

    fn find(&self, package: &str, name: &str) -> Option<MessageId> {
        let at = self.schema.by_name.binary_search_by(|at| {
            let row = &self.schema.messages[usize::from(*at)];
            (self.schema.packages[usize::from(row.package)].name.as_ref(), row.name.as_ref()).cmp(&(package, name))
        });
        at.ok().map(|at| MessageId(self.schema.by_name[at]))
    }

    /// The fields JSON shows for a message with these fields: inlined messages give theirs.
    fn json_fields(&self, own: &[u16], depth: u32) -> Vec<u16> {
        const INLINE_DEPTH_MAX: u32 = 4; // the API nests two; the bound keeps a looping table from looping us
        let mut out = Vec::with_capacity(own.len());
        for at in own {
            let field = &self.schema.fields[usize::from(*at)];
            match field.of {
                Type::Message(inner) if field.inline && depth < INLINE_DEPTH_MAX => {
                    let inner = usize::from(inner.0);
                    let fields: Vec<u16> = (self.first_field[inner]..self.first_field[inner + 1]).collect();
                    out.extend(self.json_fields(&fields, depth + 1));
                }
                _ => out.push(*at),
            }
        }
        out
    }

    fn index(&mut self, message: usize, mut wire: Vec<u16>, mut json: Vec<u16>) -> Result<(), SchemaError> {
        let fields = &self.schema.fields;
        wire.sort_by_key(|at| fields[usize::from(*at)].tag);
        json.sort_by(|a, b| fields[usize::from(*a)].name.cmp(&fields[usize::from(*b)].name));
        let tag = |at: u16| fields[usize::from(at)].tag;
        let name = |at: u16| fields[usize::from(at)].name.as_ref();
        let same_tag = wire.windows(2).find(|pair| tag(pair[0]) == tag(pair[1]) && tag(pair[0]) != 0);
        let same_name = json.windows(2).find(|pair| name(pair[0]) == name(pair[1]));
        let twice = same_tag
            .map(|pair| format!("tag {}", tag(pair[0])))
            .or(same_name.map(|pair| format!("name {:?}", name(pair[0]))));
        let row = &mut self.schema.messages[message];
        if let Some(what) = twice {
            return Err(SchemaError::Twice { message: row.name.to_string(), what });
        }
        row.wire = wire.into_boxed_slice();
        row.json = json.into_boxed_slice();
        Ok(())
    }
}

fn set_flag(field: &mut Field, rare: &mut Rare, flag: &'static str) -> Result<(), &'static str> {
    match flag.split_once('=') {
        None => match flag {
            "inline" => field.inline = true,
            "required" => field.required = true,
            "atomic" => field.merging = Merging::Atomic,
            "set" => field.merging = Merging::Set,
            "granular" => field.merging = Merging::Granular,
            "merge" => field.merge = true,
            "retainKeys" => field.retain_keys = true,
            "replace" => field.replace = true,
            _ => return Err("a field flag"),
        },
        Some(("map", keys)) => {
            field.merging = Merging::Map;
            rare.keys = keys.split(',').map(Cow::Borrowed).collect();
        }
        Some(("merge", key)) => {
            field.merge = true;
            rare.merge_key = Some(Cow::Borrowed(key));
        }
        Some(_) => return Err("the field flags map=, merge=, default="),
    }
    Ok(())
}

/// Messages whose JSON is not an object of their fields.
fn form_of(package: &str, name: &str) -> Form {
    match (package, name) {
        ("k8s.io.apimachinery.pkg.api.resource", _) => Form::Quantity,
        ("k8s.io.apimachinery.pkg.util.intstr", "IntOrString") => Form::IntOrString,
        ("k8s.io.apimachinery.pkg.runtime", "RawExtension") => Form::AnyObject,
        (super::META, "FieldsV1") => Form::AnyObject,
        (super::META, "Time" | "Timestamp") => Form::Time,
        (super::META, "MicroTime") => Form::MicroTime,
        (super::META, "Duration") => Form::Duration,
        (super::META, "Verbs") => Form::Strings,
        (_, "ExtraValue" | "AttestationValue") => Form::Strings,
        (_, "JSON") if package.contains("apiextensions") => Form::Any,
        (_, "JSONSchemaPropsOrArray") => Form::SchemaOrArray,
        (_, "JSONSchemaPropsOrBool") => Form::SchemaOrBool,
        (_, "JSONSchemaPropsOrStringArray") => Form::SchemaOrStrings,
        _ => Form::Fields,
    }
}
