//! Builds a table at run time: that of a custom resource definition.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Field, Form, Merging, Message, MessageId, Package, Rare, Row, Schema, SchemaError, Shape, Type};

/// A table while it is built.
pub(crate) struct Builder {
    schema: Schema,
    /// The fields of each message.
    fields: Vec<Vec<u16>>,
    /// Messages of another table that were taken over.
    taken: BTreeMap<MessageId, MessageId>,
}

/// What a message is, without its fields.
pub(crate) struct Part {
    /// Its name in its package.
    pub name: String,
    /// How it looks in JSON.
    pub form: Form,
    /// Whether its objects say `apiVersion` and `kind`.
    pub kind: bool,
    /// Whether server-side apply takes it as one value.
    pub atomic: bool,
    /// Whether fields that it does not name are kept.
    pub open: bool,
}

/// What a field holds.
pub(crate) struct Slot {
    /// One, list or map.
    pub shape: Shape,
    /// Its type, or that of its items or values.
    pub of: Type,
    /// How server-side apply merges it.
    pub merging: Merging,
    /// What tells the items of a `Merging::Map` list apart.
    pub keys: Vec<String>,
}

impl Builder {
    /// A table of one package, such as `com.example.v1` with `example.com/v1`.
    pub(crate) fn new(package: String, api_version: String) -> Builder {
        let package = Package { name: Cow::Owned(package), api_version: Cow::Owned(api_version) };
        let schema = Schema { packages: vec![package], fields: Vec::new(), messages: Vec::new(), by_name: Vec::new() };
        Builder { schema, fields: Vec::new(), taken: BTreeMap::new() }
    }

    /// Adds a message whose values are checked by the definition's own rules, not by the table.
    pub(crate) fn message(&mut self, part: Part) -> Result<MessageId, SchemaError> {
        let Part { name, form, kind, atomic, open } = part;
        let name = Cow::Owned(name);
        let custom = true;
        self.row(Row { package: 0, name, form, kind, atomic, open, custom, wire: Box::default(), json: Box::default() })
    }

    fn row(&mut self, row: Row) -> Result<MessageId, SchemaError> {
        let at = u16::try_from(self.schema.messages.len()).map_err(|_| SchemaError::TooLarge)?;
        self.schema.messages.push(row);
        self.fields.push(Vec::new());
        Ok(MessageId(at))
    }

    /// Adds a field to a message.
    pub(crate) fn field(&mut self, message: MessageId, name: &str, slot: Slot) -> Result<(), SchemaError> {
        let keys: Vec<Cow<'static, str>> = slot.keys.into_iter().map(Cow::Owned).collect();
        let rare = (!keys.is_empty()).then(|| Box::new(Rare { keys, ..Rare::default() }));
        self.push(
            message,
            Field {
                name: Cow::Owned(name.to_owned()),
                tag: 0,
                shape: slot.shape,
                of: slot.of,
                inline: false,
                required: false,
                pointer: true,
                merging: slot.merging,
                merge: false,
                retain_keys: false,
                replace: false,
                rare,
            },
        )
    }

    fn push(&mut self, message: MessageId, field: Field) -> Result<(), SchemaError> {
        let at = u16::try_from(self.schema.fields.len()).map_err(|_| SchemaError::TooLarge)?;
        self.schema.fields.push(field);
        self.fields[usize::from(message.0)].push(at);
        Ok(())
    }

    /// Takes a message over from another table, with all that it refers to.
    pub(crate) fn take(&mut self, message: Message<'_>) -> Result<MessageId, SchemaError> {
        if let Some(taken) = self.taken.get(&message.id()) {
            return Ok(*taken);
        }
        let id = self.row(Row {
            package: 0,
            // Not a name that a kind can have.
            name: Cow::Owned(format!("v1.{}", message.name())),
            form: message.form(),
            kind: message.is_kind(),
            atomic: message.is_atomic(),
            open: false,
            custom: false,
            wire: Box::default(),
            json: Box::default(),
        })?;
        self.taken.insert(message.id(), id);
        for field in message.fields() {
            let of = match message.of(field) {
                Some(inner) => Type::Message(self.take(inner)?),
                None => field.of,
            };
            let rare = field.rare.as_ref().map(|rare| {
                Box::new(Rare {
                    keys: rare.keys.clone(),
                    merge_key: rare.merge_key.clone(),
                    default: rare.default.clone(),
                })
            });
            let name = field.name.clone();
            let Field { tag, shape, inline, required, pointer, merging, merge, retain_keys, replace, .. } = *field;
            self.push(
                id,
                Field { name, tag, shape, of, inline, required, pointer, merging, merge, retain_keys, replace, rare },
            )?;
        }
        Ok(id)
    }

    /// The table.
    pub(crate) fn finish(self) -> Schema {
        let Builder { mut schema, fields, .. } = self;
        for (row, mut own) in schema.messages.iter_mut().zip(fields) {
            own.sort_by(|a, b| schema.fields[usize::from(*a)].name.cmp(&schema.fields[usize::from(*b)].name));
            row.json = own.into_boxed_slice();
        }
        let mut by_name: Vec<u16> = (0..schema.messages.len() as u16).collect();
        by_name.sort_by(|a, b| schema.messages[usize::from(*a)].name.cmp(&schema.messages[usize::from(*b)].name));
        schema.by_name = by_name;
        schema
    }
}
