//! What is sent: samples, samples with a few fields changed, and things that no client should send.

use http::Method;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use serde_json::{Map, Value, json};
use windlass_api::codec::encode_protobuf;
use windlass_api::resources::samples::samples;
use windlass_api::schema::{Field, Form, Message, Shape, Type};
use windlass_api::{Resource, Verbs};

use crate::request::Request;
use crate::stage::{Stage, THINGS};

/// Names in use: few, so that requests meet the same objects.
const NAMES: [&str; 4] = ["sample", "one", "two", "three"];
/// How deep made values nest.
const DEPTH_MAX: usize = 5;

const TEXTS: &[&str] = &[
    "",
    "a",
    "sample",
    "default",
    "A",
    "-",
    ".",
    "..",
    "a/b",
    "../../etc",
    "é",
    "\u{0}",
    "\u{202e}",
    " ",
    "1",
    "-1",
    "0",
    "1Gi",
    "1e400",
    "-5m",
    "100%",
    "101%",
    "9999999999999999999999",
    "true",
    "null",
    "TCP",
    "Always",
    "2026-01-01T00:00:00Z",
    "2026-13-41T99:99:99Z",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "*",
    "a=b,c!=d",
    "self.x > 1",
    "^(a+)+$",
    "example.com/app:1",
    "app/sample",
    "{{x}}",
    "$(X)",
    "%00",
    "a,b",
    "RollingUpdate",
    "ClusterIP",
    "kubernetes.io/x",
];
const NUMBERS: &[i64] = &[0, 1, -1, 2, 80, 65_535, 65_536, 1_000_000, i64::MAX, i64::MIN, 2_147_483_648];

/// Makes requests from a seed.
pub struct Generator {
    random: ChaCha8Rng,
    objects: Vec<Value>,
}

impl Generator {
    pub fn new(random: ChaCha8Rng) -> Generator {
        Generator { random, objects: samples().into_iter().map(|sample| sample.object).collect() }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random.next_u64() % end as u64) as usize
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn text(&mut self) -> String {
        match self.below(40) {
            0 => "x".repeat(300),
            1 => "y".repeat(70_000),
            _ => self.pick(TEXTS).to_owned(),
        }
    }

    /// The next request.
    pub fn request(&mut self, stage: &Stage) -> Request {
        if self.once_in(12) {
            return self.custom();
        }
        let rows: Vec<&Resource> = stage.registry.iter().map(AsRef::as_ref).collect();
        let row = self.pick(&rows);
        let name = self.pick(&NAMES).to_owned();
        let namespace = if self.once_in(10) { "kube-system" } else { "default" };
        let collection = row.kind.collection_path(Some(namespace));
        let mut item = format!("{collection}/{name}");
        if !row.subresources.is_empty() && self.once_in(3) {
            let at = self.below(row.subresources.len());
            item = format!("{item}/{}", row.subresources[at].as_str());
        }
        match self.below(12) {
            0 if self.once_in(3) => self.with_body(Method::POST, item, row, &name, namespace),
            0..=3 => self.with_body(Method::POST, collection, row, &name, namespace),
            4 | 5 => self.with_body(Method::PUT, item, row, &name, namespace),
            6..=8 => self.patch(item, row, &name, namespace),
            9 => self.read(item, "GET"),
            10 => self.read(collection, "GET"),
            _ if self.once_in(8) => self.read(collection, "DELETE"),
            _ => self.read(item, "DELETE"),
        }
    }

    /// A request for the custom kind.
    fn custom(&mut self) -> Request {
        let name = self.pick(&NAMES);
        let item = format!("{THINGS}/{name}{}", self.pick(&["", "", "", "/status", "/scale"]));
        let mut spec = Map::new();
        for field in ["n", "word", "set", "map", "free", "maybe", "embedded", "unknown"] {
            let value = match (self.below(6), field) {
                (0, _) => self.any(0),
                (1..=3, _) => continue,
                (_, "n") => json!(self.pick(NUMBERS)),
                (_, "set") => json!([self.text(), self.text()]),
                (_, "map") => json!([{"name": self.text(), "port": self.pick(NUMBERS)}, {"name": "a", "port": "b"}]),
                (_, "free") => json!({"a": self.any(0), "b": self.any(0)}),
                (_, "embedded") => json!({"apiVersion": "v1", "kind": self.text(), "metadata": self.any(0), "x": 1}),
                _ => json!(self.text()),
            };
            spec.insert(field.to_owned(), value);
        }
        let mut object = json!({"apiVersion": "fuzz.example.com/v1", "kind": "Thing", "metadata": {"name": name},
            "spec": spec, "status": {"n": self.any(0)}});
        if item.ends_with("/scale") && self.once_in(2) {
            object = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name},
                "spec": {"replicas": self.pick(NUMBERS)}});
        }
        if self.once_in(20) {
            object["metadata"] = self.any(0);
        }
        let query = self.write_query();
        let body = object.to_string().into_bytes();
        let with = |method: Method, path: &str, media: &str, body: Vec<u8>| Request {
            method,
            path: format!("{path}{query}"),
            headers: vec![("content-type", media.to_owned())],
            body,
        };
        match self.below(10) {
            0..=2 => with(Method::POST, THINGS, "application/json", body),
            3 | 4 => with(Method::PUT, &item, "application/json", body),
            5 => with(Method::PATCH, &item, "application/merge-patch+json", body),
            6 => {
                let operations = self.operations(&object).to_string().into_bytes();
                with(Method::PATCH, &item, "application/json-patch+json", operations)
            }
            7 => {
                let joint = if query.is_empty() { "?" } else { "" };
                let end = if joint.is_empty() { "&fieldManager=a&force=true" } else { "fieldManager=a&force=true" };
                let mut request = with(Method::PATCH, &item, "application/apply-patch+yaml", body);
                request.path = format!("{}{joint}{end}", request.path);
                request
            }
            8 => self.read(THINGS.to_owned(), "GET"),
            _ => {
                let method = if self.once_in(2) { "GET" } else { "DELETE" };
                self.read(item, method)
            }
        }
    }

    fn sample(&mut self, row: &Resource, name: &str, namespace: &str) -> Value {
        let api_version = row.kind.api_version();
        let found = self.objects.iter().find(|o| o["kind"] == row.kind.kind.as_ref() && o["apiVersion"] == api_version);
        let mut object = found.cloned().unwrap_or_else(|| json!({"apiVersion": api_version, "kind": row.kind.kind}));
        // Kinds whose names follow a rule keep the sample's.
        let is_free = object["metadata"]["name"] == "sample" || object["metadata"].is_null();
        if row.verbs == Verbs::All && is_free {
            object["metadata"]["name"] = json!(name);
        }
        if row.kind.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object
    }

    fn object(&mut self, row: &Resource, name: &str, namespace: &str) -> Value {
        let mut object = self.sample(row, name, namespace);
        let message = row.message.get();
        for _ in 0..self.below(4) {
            self.change(&mut object, message, 0);
        }
        if self.once_in(30) {
            object["metadata"] = self.any(0);
        } else if self.once_in(20) && object["metadata"].is_object() {
            object["metadata"]["generateName"] = json!("made-");
            object["metadata"]["name"] = Value::Null;
        }
        object
    }

    /// Sets, replaces or removes one field somewhere below.
    fn change(&mut self, object: &mut Value, message: Message<'_>, depth: usize) {
        let fields: Vec<&Field> = message.fields().collect();
        let (Some(map), false) = (object.as_object_mut(), fields.is_empty()) else { return };
        let field = self.pick(&fields);
        let inner = message.of(field);
        let present = map.get_mut(field.name.as_ref());
        match (present, inner) {
            (Some(Value::Object(_)), Some(inner)) if field.shape == Shape::One && !self.once_in(5) => {
                let value = map.get_mut(field.name.as_ref()).expect("it was there a line ago");
                self.change(value, inner, depth + 1);
            }
            (Some(Value::Array(items)), Some(inner)) if !items.is_empty() && !self.once_in(5) => {
                let at = self.below(items.len());
                if self.once_in(6) {
                    let again = items[at].clone();
                    items.push(again);
                } else {
                    self.change(&mut items[at], inner, depth + 1);
                }
            }
            (Some(_), _) if self.once_in(4) => drop(map.remove(field.name.as_ref())),
            _ => {
                let value = self.field(message, field, depth + 1);
                map.insert(field.name.to_string(), value);
            }
        }
        if self.once_in(25) {
            let (key, value) = (self.text(), self.any(0));
            map.insert(key, value);
        }
    }

    fn field(&mut self, message: Message<'_>, field: &Field, depth: usize) -> Value {
        if self.once_in(12) {
            return self.any(depth);
        }
        match field.shape {
            Shape::One => self.one(message, field, depth),
            Shape::List => (0..self.below(3)).map(|_| self.one(message, field, depth)).collect(),
            Shape::Map => {
                let count = self.below(3);
                Value::Object((0..count).map(|_| (self.text(), self.one(message, field, depth))).collect())
            }
        }
    }

    fn one(&mut self, message: Message<'_>, field: &Field, depth: usize) -> Value {
        match (field.of, message.of(field)) {
            (Type::String, _) => json!(self.text()),
            (Type::Bool, _) => json!(self.once_in(2)),
            (Type::Int32 | Type::Int64, _) => json!(self.pick(NUMBERS)),
            (Type::Double, _) => json!(1.5),
            (Type::Bytes, _) => json!(self.pick(&["", "aGVsbG8=", "not base64", "////"])),
            (Type::Message(_), Some(inner)) => self.message(inner, depth),
            (Type::Message(_), None) => Value::Null,
        }
    }

    fn message(&mut self, message: Message<'_>, depth: usize) -> Value {
        match message.form() {
            Form::Fields if depth > DEPTH_MAX => json!({}),
            Form::Fields => {
                let fields: Vec<&Field> = message.fields().collect();
                let mut map = Map::new();
                for field in fields {
                    if field.required || self.once_in(6) {
                        map.insert(field.name.to_string(), self.field(message, field, depth + 1));
                    }
                }
                Value::Object(map)
            }
            Form::Quantity | Form::IntOrString if self.once_in(2) => json!(self.pick(NUMBERS)),
            Form::Strings => json!([self.text()]),
            Form::AnyObject => json!({"kind": self.text(), "a": self.any(depth)}),
            Form::Any | Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => self.any(depth),
            _ => json!(self.text()),
        }
    }

    /// A value of any type.
    fn any(&mut self, depth: usize) -> Value {
        match self.below(if depth > DEPTH_MAX { 6 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.once_in(2)),
            2 => json!(self.pick(NUMBERS)),
            3 => json!(0.1),
            4 | 5 => json!(self.text()),
            6 => (0..self.below(3)).map(|_| self.any(depth + 1)).collect(),
            7 => {
                let mut deep = Value::Null;
                for _ in 0..self.below(200) {
                    deep = json!([deep]);
                }
                deep
            }
            _ => {
                let count = self.below(3);
                Value::Object((0..count).map(|_| (self.text(), self.any(depth + 1))).collect())
            }
        }
    }

    fn with_body(&mut self, method: Method, path: String, row: &Resource, name: &str, namespace: &str) -> Request {
        let object = self.object(row, name, namespace);
        let (media, body) = match self.below(20) {
            0 => ("application/yaml", format!("{object}\n---\n&a [*a, *a]").into_bytes()),
            1 | 2 => ("application/yaml", object.to_string().into_bytes()),
            3..=5 => match encode_protobuf(&object, row.message.get()) {
                Ok(mut bytes) => {
                    if self.once_in(3) {
                        let at = self.below(bytes.len());
                        bytes[at] ^= 1 << self.below(8);
                    }
                    ("application/vnd.kubernetes.protobuf", bytes)
                }
                Err(_) => ("application/json", object.to_string().into_bytes()),
            },
            6 => {
                let mut bytes = object.to_string().into_bytes();
                let at = self.below(bytes.len());
                bytes[at] = self.pick(b"{}[]\",:0x\xff");
                ("application/json", bytes)
            }
            _ => ("application/json", object.to_string().into_bytes()),
        };
        let query = self.write_query();
        Request { method, path: path + &query, headers: vec![("content-type", media.to_owned())], body }
    }

    fn patch(&mut self, path: String, row: &Resource, name: &str, namespace: &str) -> Request {
        let object = self.object(row, name, namespace);
        let (media, body) = match self.below(4) {
            0 => ("application/json-patch+json", self.operations(&object)),
            1 => ("application/apply-patch+yaml", object),
            form => {
                let mut patch = object;
                if self.once_in(4) {
                    let spec = patch.get_mut("spec").and_then(Value::as_object_mut);
                    if let Some(spec) = spec {
                        let word = self.pick(&["replace", "delete", "merge", "retainKeys", "what"]);
                        spec.insert("$patch".to_owned(), json!(word));
                        spec.insert("$setElementOrder/containers".to_owned(), self.any(0));
                        spec.insert("$deleteFromPrimitiveList/finalizers".to_owned(), self.any(0));
                    }
                }
                let merge = form == 2;
                (if merge { "application/merge-patch+json" } else { "application/strategic-merge-patch+json" }, patch)
            }
        };
        let mut query = self.write_query();
        if media.starts_with("application/apply") {
            query += if query.is_empty() { "?" } else { "&" };
            query += self.pick(&["fieldManager=a", "fieldManager=b&force=true", "fieldManager=", "force=maybe"]);
        }
        let body = body.to_string().into_bytes();
        Request { method: Method::PATCH, path: path + &query, headers: vec![("content-type", media.to_owned())], body }
    }

    /// A JSON patch of fields that the object has, or not.
    fn operations(&mut self, object: &Value) -> Value {
        let mut pointers = Vec::new();
        pointers_of(object, "", &mut pointers);
        let mut operations = Vec::new();
        for _ in 0..=self.below(4) {
            let operation = self.pick(&["add", "remove", "replace", "move", "copy", "test", "none"]);
            let (at, from) = (self.below(pointers.len()), self.below(pointers.len()));
            let mut path = pointers[at].clone();
            if self.once_in(4) {
                path += self.pick(&["/x", "/-", "/0", "/~2", "~", "/99999999999"]);
            }
            let value = self.any(0);
            operations.push(json!({"op": operation, "path": path, "from": pointers[from], "value": value}));
        }
        Value::Array(operations)
    }

    fn write_query(&mut self) -> String {
        match self.below(16) {
            0 => "?dryRun=All".to_owned(),
            1 => "?fieldValidation=Strict".to_owned(),
            2 => "?fieldValidation=Ignore&fieldManager=fuzz".to_owned(),
            3 => "?dryRun=Some".to_owned(),
            4 => format!("?fieldManager={}", "m".repeat(200)),
            5 => "?dryRun=All&fieldValidation=Strict".to_owned(),
            _ => String::new(),
        }
    }

    fn read(&mut self, path: String, method: &str) -> Request {
        let query = self.pick(&[
            "",
            "",
            "",
            "?limit=1",
            "?limit=-1",
            "?limit=2&continue=eyJ2IjoxfQ",
            "?resourceVersion=0",
            "?resourceVersion=1&resourceVersionMatch=Exact",
            "?resourceVersion=abc",
            "?labelSelector=a%3Db,c",
            "?labelSelector=a+in+(",
            "?fieldSelector=metadata.name%3Dsample",
            "?fieldSelector=spec.what%3Dx",
            "?watch=true&timeoutSeconds=1",
            "?watch=1&resourceVersion=1&allowWatchBookmarks=true",
            "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            "?watch=maybe",
            "?gracePeriodSeconds=0",
            "?propagationPolicy=Orphan",
            "?propagationPolicy=Sideways",
            "?dryRun=All",
            "?dryRun=All&propagationPolicy=Foreground",
            "?pretty=true",
            "?timeoutSeconds=-1",
            "?a=%zz",
        ]);
        // A delete or a read of one object takes no watch.
        let accept = self.pick(&[
            "application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf",
            "application/yaml",
            "text/html",
            "*/*",
        ]);
        let body = if method == "DELETE" && self.once_in(4) {
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": self.any(0), "gracePeriodSeconds": self.pick(NUMBERS)})
                .to_string()
                .into_bytes()
        } else {
            Vec::new()
        };
        let method = method.parse().expect("a method");
        Request { method, path: path + query, headers: vec![("accept", accept.to_owned())], body }
    }
}

fn pointers_of(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| pointers_of(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| pointers_of(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}
