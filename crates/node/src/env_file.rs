//! Variables that a container has left for others in a file: `fileKeyRef`.
//!
//! Source: Kubernetes documentation, "Define Environment Variable Values Using An Init Container".
//!
//! Rules
//!   R1 lines    `NAME='value'`; blanks around the name and before the line mean nothing; so do blank lines and `#` lines
//!   R2 values   stand in single quotes and are taken as they are, over several lines too
//!   R3 last     of several lines for one name the last one counts
//!   R4 absent   a file or key that is not there is an error, unless it is optional; a file that is not understood always is

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use windlass_api::types::core;

use crate::env::ConfigError;
use crate::machine::Machine;

/// Files by volume and path. `None` is one that is not there; an error is one that could not be read.
pub type EnvFiles = BTreeMap<(String, String), Result<Option<Bytes>, String>>;

/// Reads every file that the container's variables name.
pub async fn of_container(machine: &dyn Machine, pod: &str, container: &core::Container) -> EnvFiles {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let mut files = EnvFiles::new();
    for selector in sources.filter_map(|source| source.file_key_ref.as_ref()) {
        let (volume, path) = (&selector.volume_name, &selector.path);
        if let Entry::Vacant(place) = files.entry((volume.clone(), path.clone())) {
            let read = machine.read_volume(pod, volume, path).await;
            place.insert(read.map_err(|error| error.to_string()));
        }
    }
    files
}

/// R4. `None` when an optional key is not there.
pub fn value(files: &EnvFiles, selector: &core::FileKeySelector) -> Result<Option<String>, ConfigError> {
    let refuse = |why: String| {
        let (path, volume) = (&selector.path, &selector.volume_name);
        Err(ConfigError::Refused(format!("environment file {path:?} of volume {volume:?}: {why}")))
    };
    let key = (selector.volume_name.clone(), selector.path.clone());
    let bytes = match files.get(&key) {
        Some(Ok(Some(bytes))) => bytes,
        Some(Err(why)) => return refuse(why.clone()),
        _ if selector.optional == Some(true) => return Ok(None),
        _ => return refuse("it does not exist".to_owned()),
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return refuse(error.to_string()),
    };
    match parse(text) {
        Ok(mut variables) => match variables.remove(selector.key.as_str()) {
            Some(value) => Ok(Some(value.to_owned())),
            None if selector.optional == Some(true) => Ok(None),
            None => refuse(format!("it has no key {:?}", selector.key)),
        },
        Err(why) => refuse(why),
    }
}

/// R1, R2, R3.
fn parse(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let wrong = |what: &str| format!("line {line}: expected NAME='value', found {what}");
        let first = rest.split('\n').next().unwrap_or_default();
        let Some((name, _)) = first.split_once('=') else { return Err(wrong("no '='")) };
        let value = rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong("no name before '='"));
        }
        let Some((value, after)) = value.strip_prefix('\'').and_then(|inner| inner.split_once('\'')) else {
            return Err(wrong("a value that is not in single quotes"));
        };
        let (left, next) = after.split_once('\n').unwrap_or((after, ""));
        if !left.trim().is_empty() {
            return Err(wrong("something behind the value"));
        }
        variables.insert(name, value);
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::{EnvFiles, parse, value};
    use serde_json::json;

    #[test]
    fn lines_are_names_and_quoted_values() {
        let text = "# made by init\nA='1'\n\n  B = 'two words' \nC='x # y\nz'\r\nA='2'\nD=''\n";
        let found = parse(text).expect("understood");
        let found: Vec<_> = found.into_iter().collect();
        assert_eq!(found, [("A", "2"), ("B", "two words"), ("C", "x # y\nz"), ("D", "")]);
        let rows = [
            ("A=1", "single quotes"),
            ("\nA='1", "line 2"),
            ("A", "no '='"),
            ("='1'", "no name"),
            ("A='1'x", "behind"),
        ];
        for (text, why) in rows {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_absent_is_an_error_unless_it_is_optional() {
        let key = |path: &str| ("v".to_owned(), path.to_owned());
        let files = EnvFiles::from([
            (key("env"), Ok(Some("A='1'".into()))),
            (key("none"), Ok(None)),
            (key("bad"), Ok(Some("A".into()))),
            (key("long"), Err("too long".to_owned())),
        ]);
        let check = |path: &str, name: &str, optional: bool| {
            let selector = json!({"volumeName": "v", "path": path, "key": name, "optional": optional});
            value(&files, &serde_json::from_value(selector).expect("a selector")).map_err(|error| error.to_string())
        };
        assert_eq!(check("env", "A", false), Ok(Some("1".to_owned())));
        assert_eq!(check("env", "B", true), Ok(None));
        assert_eq!(check("none", "A", true), Ok(None));
        for (path, name, optional) in
            [("env", "B", false), ("none", "A", false), ("bad", "A", true), ("long", "A", true)]
        {
            let error = check(path, name, optional).expect_err(path);
            assert!(error.contains(path), "{error}");
        }
    }
}
