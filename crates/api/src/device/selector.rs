//! Which devices are meant: an expression over what their driver says of them.
//!
//! Source: API reference, CELDeviceSelector.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;

use super::Device;
use crate::cel::{
    Bindings, Budget, Env, EvalError, Key, Map, Object, ObjectType, Opaque, Program, Semver, Shape, Text,
};
use crate::cel::{Type, Value};
use crate::quantity::Quantity;

/// What one evaluation may cost, at worst too.
pub const SELECTOR_COST_MAX: u64 = 1_000_000;
/// Bounds of what a ResourceSlice says of a device: names, domains, texts.
const NAME_CHARS_MAX: u64 = 32;
const DOMAIN_CHARS_MAX: u64 = 63;
const TEXT_CHARS_MAX: u64 = 64;
/// Attributes and capacities of a device.
const FACTS_MAX: u64 = 32;

/// A compiled selector.
#[derive(Debug)]
pub struct Selector(Program);

/// Why an expression is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It does not compile, or is no bool.
    #[error("{0}")]
    Invalid(String),
    /// It may cost too much.
    #[error("too complex, exceeds cost limit")]
    Costly,
}

impl Selector {
    /// Compiles an expression.
    pub fn compile(expression: &str) -> Result<Selector, SelectorError> {
        let compiled = environment().compile(expression);
        let program = compiled.map_err(|found| SelectorError::Invalid(format!("compilation failed: {found}")))?;
        let of = program.output();
        if !matches!(of, Type::Bool | Type::Dyn) {
            let why = format!("must evaluate to bool or the unknown type, not {of}");
            return Err(SelectorError::Invalid(why));
        }
        if program.cost().max > SELECTOR_COST_MAX {
            return Err(SelectorError::Costly);
        }
        Ok(Selector(program))
    }

    /// Whether a device is meant.
    ///
    /// Errors: it failed on this device, or the budget is spent.
    pub fn matches(&self, device: &Device, budget: &mut Budget) -> Result<bool, EvalError> {
        let value = self.0.evaluate(&Bindings::new().with("device", device.seen.clone()), budget)?;
        let odd = || EvalError::Failed(format!("CEL result of type {} could not be converted to bool", value.of()));
        value.as_bool().ok_or_else(odd)
    }
}

fn device_type() -> &'static Arc<ObjectType> {
    static DEVICE: OnceLock<Arc<ObjectType>> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let by_domain = |value: Shape| {
            let names = Shape::map(value).max(FACTS_MAX).key_max(NAME_CHARS_MAX);
            Shape::map(names).max(FACTS_MAX).key_max(DOMAIN_CHARS_MAX)
        };
        let object = ObjectType::new("kubernetes.DRADevice")
            .field("driver", Shape::from(Type::String).max(DOMAIN_CHARS_MAX))
            .field("attributes", by_domain(Shape::from(Type::Dyn).max(TEXT_CHARS_MAX)))
            .field("capacity", by_domain(Shape::from(Type::Opaque("kubernetes.Quantity"))))
            .field("allowMultipleAllocations", Type::Bool);
        Arc::new(object)
    })
}

fn environment() -> &'static Env {
    static ENVIRONMENT: OnceLock<Env> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| Env::new().variable("device", Shape::object(Arc::clone(device_type()))))
}

/// Domain and name of what is said of a device.
pub(super) fn qualified<'a>(name: &'a str, driver: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((driver, name))
}

/// What selectors see of a device. What cannot be read is left out: one odd word of a driver keeps nobody from its devices.
pub(super) fn seen(driver: &str, wire: &Json) -> Value<'static> {
    let facts = |field: &str, read: &dyn Fn(&Json) -> Option<Value<'static>>| {
        let mut domains: BTreeMap<Key<'static>, BTreeMap<Key<'static>, Value<'static>>> = BTreeMap::new();
        for (name, wire) in wire[field].as_object().into_iter().flatten() {
            let Some(value) = read(wire) else { continue };
            let (domain, name) = qualified(name, driver);
            domains.entry(key(domain)).or_default().insert(key(name), value);
        }
        let domains = domains.into_iter().map(|(domain, names)| (domain, Value::Map(Map::Built(Arc::new(names)))));
        Value::Map(Map::Nested(Arc::new(domains.collect())))
    };
    let capacity = |wire: &Json| Some(Value::Opaque(Opaque::Quantity(Quantity::from_json(&wire["value"]).ok()?)));
    let fields: Vec<(Arc<str>, Value<'static>)> = vec![
        ("driver".into(), Value::String(Text::Owned(driver.into()))),
        ("attributes".into(), facts("attributes", &attribute)),
        ("capacity".into(), facts("capacity", &capacity)),
        ("allowMultipleAllocations".into(), Value::Bool(wire["allowMultipleAllocations"] == true)),
    ];
    Value::Object(Object::Built(Arc::clone(device_type()), Arc::new(fields)))
}

fn key(text: &str) -> Key<'static> {
    Key::String(Text::Owned(text.into()))
}

fn attribute(wire: &Json) -> Option<Value<'static>> {
    if let Some(number) = wire["int"].as_i64() {
        return Some(Value::Int(number));
    }
    if let Some(flag) = wire["bool"].as_bool() {
        return Some(Value::Bool(flag));
    }
    if let Some(text) = wire["string"].as_str() {
        return Some(Value::String(Text::Owned(text.into())));
    }
    let version = Semver::parse(wire["version"].as_str()?)?;
    Some(Value::Opaque(Opaque::Semver(Arc::new(version))))
}

#[cfg(test)]
mod tests {
    use super::super::Device;
    use super::{SELECTOR_COST_MAX, Selector, SelectorError};
    use crate::cel::Budget;
    use serde_json::json;

    fn verdict(expression: &str) -> String {
        let wire = json!({"name": "x", "attributes": {"model": {"string": "a100"}, "cores": {"int": 8},
            "f.g/fast": {"bool": true}, "version": {"version": "1.10.0"}, "odd": {"version": "v1"}, "list": {"ints": [1]}},
            "capacity": {"memory": {"value": "40Gi"}, "odd": {"value": "much"}}});
        let device = Device::read("gpu.example.com", &wire);
        match Selector::compile(expression) {
            Err(error) => format!("refused: {error}"),
            Ok(selector) => match selector.matches(&device, &mut Budget::new(SELECTOR_COST_MAX)) {
                Ok(is_meant) => is_meant.to_string(),
                Err(error) => format!("error: {error}"),
            },
        }
    }

    #[test]
    fn d2_a_selector_sees_driver_attributes_and_capacity_by_domain() {
        for (expression, expected) in [
            ("device.driver == 'gpu.example.com'", "true"),
            ("device.attributes['gpu.example.com'].model == 'a100'", "true"),
            ("device.attributes['gpu.example.com'].cores > 8", "false"),
            ("device.attributes['f.g'].fast", "true"),
            ("device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.9.0'))", "true"),
            ("device.capacity['gpu.example.com'].memory.compareTo(quantity('32Gi')) >= 0", "true"),
            ("cel.bind(own, device.attributes['gpu.example.com'], own.cores == 8 && own.model != '')", "true"),
            ("'model' in device.attributes['gpu.example.com']", "true"),
            ("'model' in device.attributes['nobody.example.com']", "false"),
            ("'nobody.example.com' in device.attributes", "false"),
            ("has(device.attributes['nobody.example.com'].model)", "false"),
            ("!device.allowMultipleAllocations", "true"),
            // What cannot be read is not there.
            ("'odd' in device.attributes['gpu.example.com']", "false"),
            ("'list' in device.attributes['gpu.example.com']", "false"),
            ("'odd' in device.capacity['gpu.example.com']", "false"),
            ("device.attributes['nobody.example.com'].model == 'a100'", "error: no such key: model"),
            (
                "device.attributes['gpu.example.com'].model",
                "error: CEL result of type string could not be converted to bool",
            ),
        ] {
            assert_eq!(verdict(expression), expected, "{expression}");
        }
    }

    #[test]
    fn d3_what_does_not_compile_or_costs_too_much_is_no_selector() {
        assert!(verdict("device.nothing == 1").starts_with("refused: compilation failed: "));
        assert!(verdict("device.").starts_with("refused: compilation failed: "));
        assert_eq!(verdict("device.driver"), "refused: must evaluate to bool or the unknown type, not string");
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, \
            device.attributes.all(d, a == b || c == d))))";
        assert_eq!(Selector::compile(nested).map(drop), Err(SelectorError::Costly));
    }
}
