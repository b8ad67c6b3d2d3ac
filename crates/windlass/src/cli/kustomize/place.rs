//! Places in objects: paths that go through lists without naming their items, for objects of some kinds.
//!
//! Rules
//!   P1 path     `/` between names, `\/` within one; every item of a list on the way is gone through
//!   P2 create   a place that is not there is made, if that is wanted; `[]` behind a name is a list, which is never made

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::file::FieldSpec;
use super::resource::Resource;

/// A place, and of which objects; what is empty may be anything.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    pub path: &'p str,
    pub group: &'p str,
    pub version: &'p str,
    pub kind: &'p str,
    pub create: bool,
}

/// What is made where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    Nothing,
    Map,
    Scalar,
}

/// A place that is made where it is wanted.
pub const fn made(path: &'static str, group: &'static str, kind: &'static str) -> Place<'static> {
    Place { path, group, version: "", kind, create: true }
}

/// A place that counts only where it is.
pub const fn found(path: &'static str, group: &'static str, kind: &'static str) -> Place<'static> {
    Place { path, group, version: "", kind, create: false }
}

impl<'p> From<&'p FieldSpec> for Place<'p> {
    fn from(spec: &'p FieldSpec) -> Place<'p> {
        let FieldSpec { path, group, version, kind, create } = spec;
        Place { path, group, version, kind, create: *create }
    }
}

impl Place<'_> {
    /// Does something with the value at this place of an object, if the object is of its kind.
    pub fn each(
        &self,
        resource: &mut Resource,
        made: Made,
        work: &mut dyn FnMut(&mut Value) -> Result<()>,
    ) -> Result<()> {
        let id = resource.id();
        if !id.is_of(self.group, self.version, self.kind) {
            return Ok(());
        }
        let path = split(self.path);
        let made = if self.create { made } else { Made::Nothing };
        walk(&mut resource.object, &path, made, work)
            .with_context(|| format!("considering field '{}' of object {id}", self.path))
    }
}

/// P1.
fn split(path: &str) -> Vec<String> {
    const SLASH: &str = "\0";
    path.replace("\\/", SLASH).split('/').map(|name| name.replace(SLASH, "/")).collect()
}

fn walk(value: &mut Value, path: &[String], made: Made, work: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    let Some((name, rest)) = path.split_first() else { return work(value) };
    let fields = match value {
        Value::Null => return Ok(()),
        Value::Array(items) => return items.iter_mut().try_for_each(|item| walk(item, path, made, work)),
        Value::Object(fields) => fields,
        _ => bail!("expected sequence or mapping node"),
    };
    // P2.
    let (name, is_list) = name.strip_suffix("[]").map_or((name.as_str(), false), |name| (name, true));
    if !is_list && made != Made::Nothing {
        let new = match (rest.is_empty(), made) {
            (true, Made::Scalar) => json!(""),
            _ => json!({}),
        };
        let field = fields.entry(name).or_insert(Value::Null);
        if field.is_null() {
            *field = new;
        }
    }
    match fields.get_mut(name) {
        Some(field) => walk(field, rest, made, work),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::Resource;
    use super::{Made, found, made, split};
    use serde_json::{Value, json};

    #[test]
    fn p1_a_path_goes_through_lists() {
        assert_eq!(split("metadata/annotations/a.io\\/b"), ["metadata", "annotations", "a.io/b"]);
        let pod = json!({"kind": "Pod", "spec": {"containers": [{"image": "a"}, {"name": "b"}, {"image": "c"}]}});
        let mut pod = Resource::new(pod);
        let mut seen = Vec::new();
        let mut note = |value: &mut Value| {
            seen.push(value.clone());
            Ok(())
        };
        found("spec/containers/image", "", "Pod").each(&mut pod, Made::Nothing, &mut note).expect("a path");
        found("spec/containers/image", "", "Job").each(&mut pod, Made::Nothing, &mut note).expect("another kind");
        assert_eq!(seen, ["a", "c"]);
    }

    #[test]
    fn p2_a_place_is_made_where_that_is_wanted() {
        let mut set = |value: &mut Value| {
            value["a"] = json!("b");
            Ok(())
        };
        let mut job = Resource::new(json!({"kind": "Job", "metadata": {"labels": null}}));
        made("metadata/labels", "", "").each(&mut job, Made::Map, &mut set).expect("made");
        made("spec/template/labels", "", "").each(&mut job, Made::Map, &mut set).expect("made");
        made("spec/claims[]/labels", "", "").each(&mut job, Made::Map, &mut set).expect("not made");
        found("status/labels", "", "").each(&mut job, Made::Map, &mut set).expect("not made");
        let expected =
            json!({"kind": "Job", "metadata": {"labels": {"a": "b"}}, "spec": {"template": {"labels": {"a": "b"}}}});
        assert_eq!(job.object, expected);
    }
}
