//! `windlass apply`: objects become as files want them.
//!
//! Rules
//!   R1 new       an object that is not there is created, with a note of what was applied
//!   R2 change    one that is there is patched by the difference of what was applied, what is there and what is wanted
//!   R3 nothing   an empty difference is not sent
//!   R4 server    `--server-side` sends the object as an apply patch; conflicts are refused unless `--force-conflicts`
//!   R5 again     a patch that met another write is computed again, at most PATCH_TRIES_MAX times
//!   R6 force     `--force` deletes and creates an object that cannot be patched
//!   R7 rest      one failure does not keep the others from being applied
//! Not here       `--prune`
//! Source: Kubernetes docs, "Declarative Management of Kubernetes Objects"

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use windlass_api::merge::{PatchType, merge, strategic_merge, three_way};
use windlass_api::schema::{Message, kubernetes};
use windlass_client::{Call, ClientError, segment, with_query};

use super::create::post;
use super::manifest::{FileFlags, Manifest};
use super::output::form::Form;
use super::output::{escape, json, object};
use super::session::{Session, SessionFlags, object_path};
use super::write::WriteFlags;
use windlass_api::Kind;
use windlass_api::selector::LabelSelector;

/// Where what was applied is noted down.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a patch that met another write is tried.
const PATCH_TRIES_MAX: usize = 5;

/// `windlass apply`.
#[derive(Args)]
pub struct ApplyFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    #[command(flatten)]
    pub files: FileFlags,
    #[command(flatten)]
    pub write: WriteFlags,
    /// Only objects with these labels
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Let the server merge, by who owns which field
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value_t = false, action = clap::ArgAction::Set)]
    pub server_side: bool,
    /// Take fields that others own
    #[arg(long, requires = "server_side")]
    pub force_conflicts: bool,
    /// Delete and create an object that cannot be changed
    #[arg(long, conflicts_with = "server_side")]
    pub force: bool,
}

/// Does it.
pub async fn run(session: &Session, flags: &ApplyFlags) -> Result<()> {
    let selector = LabelSelector::parse(&flags.selector)?;
    let is_wanted = |manifest: &Manifest| selector.matches_json(&manifest.object["metadata"]["labels"]);
    flags.files.each("apply", is_wanted, async |manifest| apply(session, flags, manifest).await).await
}

async fn apply(session: &Session, flags: &ApplyFlags, manifest: &Manifest) -> Result<()> {
    let served = session.discovery().await?.of_manifest(manifest)?;
    let namespace = session.namespace_for(&served.kind, &manifest.object)?;
    let mut wanted = manifest.object.clone();
    if served.kind.namespaced {
        wanted["metadata"]["namespace"] = json!(namespace);
    }
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        bail!("error when reading {}: apply needs a metadata.name; generateName is for create", manifest.origin);
    }
    let one = One { session, flags, kind: &served.kind, namespace, name, origin: &manifest.origin };
    if flags.server_side { one.server_side(&wanted).await } else { one.client_side(wanted).await }
}

/// One object on its way.
struct One<'o> {
    session: &'o Session,
    flags: &'o ApplyFlags,
    kind: &'o Kind,
    namespace: String,
    name: String,
    origin: &'o str,
}

impl One<'_> {
    fn path(&self) -> String {
        object_path(self.kind, &self.namespace, &self.name)
    }

    /// R4.
    async fn server_side(&self, wanted: &Value) -> Result<()> {
        let write = &self.flags.write;
        let mut query = write.query("kubectl");
        query.push(("force", if self.flags.force_conflicts { "true" } else { "false" }));
        let body = serde_json::to_vec(wanted)?;
        let call = Call::new(Method::PATCH, with_query(&self.path(), &query));
        let applied = self.session.json(call.body("application/apply-patch+yaml", body)).await;
        let applied = applied.map_err(|error| conflict_said(error, self.flags))?;
        say_done(&applied, "serverside-applied", write)
    }

    /// R1 to R3.
    async fn client_side(&self, mut wanted: Value) -> Result<()> {
        let note = note(&wanted);
        wanted["metadata"]["annotations"][LAST_APPLIED] = json!(note);
        let write = &self.flags.write;
        let query = write.query("kubectl-client-side-apply");
        let Some(mut current) = self.session.get_option(self.kind, &self.namespace, &self.name).await? else {
            let made = if write.dry_run.is_client() { wanted } else { self.create(&wanted, &query).await? };
            return say_done(&made, "created", write);
        };
        if current["metadata"]["annotations"][LAST_APPLIED].is_null() && !write.dry_run.is_client() {
            eprintln!(
                "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by windlass apply. windlass apply should only be used on resources created declaratively by either windlass create --save-config or windlass apply. The missing annotation will be patched automatically.",
                self.kind.plural, self.name
            );
        }
        for tries in 1.. {
            let message = schema_of(self.kind);
            let patch = difference(&current, &wanted, message)?;
            if patch == json!({}) {
                return say_done(&current, "unchanged", write);
            }
            if write.dry_run.is_client() {
                return say_done(&patched(&current, patch, message)?, "configured", write);
            }
            let media = media_of(message);
            let call = Call::new(Method::PATCH, with_query(&self.path(), &query));
            match self.session.json(call.body(media, serde_json::to_vec(&patch)?)).await {
                Ok(changed) => return say_done(&changed, "configured", write),
                Err(error) if is_conflict(&error) && tries < PATCH_TRIES_MAX => {
                    current = self.session.get(self.kind, &self.namespace, &self.name).await?;
                }
                Err(error) if self.flags.force && is_conflict_or_invalid(&error) => {
                    return say_done(&self.replace(&wanted, &query).await?, "configured", write);
                }
                Err(error) => {
                    let shown = escape::text(&json::compact(&patch)).into_owned();
                    let what = format!(
                        "error when applying patch:\n{shown}\nto:\n{} {:?}\nfor: {:?}: error when patching {:?}",
                        self.kind.plural, self.name, self.origin, self.origin
                    );
                    return Err(error.context(what));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    async fn create(&self, wanted: &Value, query: &[(&str, &str)]) -> Result<Value> {
        let path = self.kind.collection_path(Some(&segment(&self.namespace)));
        let created = post(self.session, &path, wanted, query).await;
        created.with_context(|| format!("error when creating {:?}", self.origin))
    }

    /// R6.
    async fn replace(&self, wanted: &Value, query: &[(&str, &str)]) -> Result<Value> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        self.session.json(Call::with_json(Method::DELETE, with_query(&self.path(), query), &body)).await?;
        if query.contains(&("dryRun", "All")) {
            return Ok(wanted.clone());
        }
        let gone = |found: Option<&Value>| Ok(found.is_none().then_some(()));
        self.session.until(self.kind, &self.namespace, &self.name, gone).await?;
        self.create(wanted, query).await
    }
}

/// What is noted down of an object: itself, without the note.
fn note(wanted: &Value) -> String {
    let mut noted = wanted.clone();
    match noted["metadata"]["annotations"].as_object_mut() {
        Some(annotations) => {
            annotations.remove(LAST_APPLIED);
        }
        None => noted["metadata"]["annotations"] = json!({}),
    }
    json::compact(&noted) + "\n"
}

/// R2.
fn difference(current: &Value, wanted: &Value, message: Option<Message>) -> Result<Value> {
    let original = match current["metadata"]["annotations"][LAST_APPLIED].as_str() {
        Some(text) => {
            serde_json::from_str(text).with_context(|| format!("the annotation {LAST_APPLIED} is not JSON"))?
        }
        None => Value::Null,
    };
    for field in ["/apiVersion", "/kind", "/metadata/name"] {
        if original.pointer(field).is_some_and(|before| Some(before) != wanted.pointer(field)) {
            bail!("what was applied before was another object: {field} differs");
        }
    }
    Ok(three_way(&original, current, wanted, message))
}

/// What the server would make of a patch, as far as we can know.
fn patched(current: &Value, patch: Value, message: Option<Message>) -> Result<Value> {
    match message {
        Some(message) => Ok(strategic_merge(current, patch, message)?),
        None => {
            let mut made = current.clone();
            merge(&mut made, patch);
            Ok(made)
        }
    }
}

/// The schema by which lists of this kind merge; custom kinds have none.
pub fn schema_of(kind: &Kind) -> Option<Message<'static>> {
    kubernetes().find_kind(&kind.api_version(), &kind.kind)
}

/// How a patch by this schema is sent.
pub fn media_of(schema: Option<Message>) -> &'static str {
    if schema.is_some() { PatchType::Strategic.as_str() } else { PatchType::Merge.as_str() }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_conflict)
}

fn is_conflict_or_invalid(error: &anyhow::Error) -> bool {
    is_conflict(error) || matches!(error.downcast_ref(), Some(ClientError::Api(refusal)) if refusal.code() == 422)
}

/// A conflict of owners says what can be done about it.
fn conflict_said(error: anyhow::Error, flags: &ApplyFlags) -> anyhow::Error {
    if !is_conflict(&error) || flags.force_conflicts {
        return error;
    }
    anyhow!(
        "{error}\nThese fields have other managers: to take them, apply again with --force-conflicts; to leave them, remove them from the file"
    )
}

/// What a write has come to: a line, or the object in the form that was asked for.
pub fn say_done(made: &Value, outcome: &str, write: &WriteFlags) -> Result<()> {
    if write.output.is_empty() {
        println!("{} {outcome}{}", escape::text(&object::name(made)), write.dry_run.suffix());
        return Ok(());
    }
    let form = Form::parse(&write.output)?;
    let mut shown = made.clone();
    object::hide_managed_fields(&mut shown);
    print!("{}", object::print(&form, &shown)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LAST_APPLIED, difference, note, schema_of};
    use serde_json::json;
    use windlass_api::kinds;

    #[test]
    fn r1_the_note_is_the_object_without_itself() {
        let object = json!({"kind": "X", "metadata": {"name": "a<b", "annotations": {LAST_APPLIED: "old", "n": "v"}}});
        assert_eq!(
            note(&object),
            "{\"kind\":\"X\",\"metadata\":{\"annotations\":{\"n\":\"v\"},\"name\":\"a\\u003cb\"}}\n"
        );
        assert_eq!(note(&json!({"metadata": {}})), "{\"metadata\":{\"annotations\":{}}}\n");
    }

    #[test]
    fn r2_what_was_applied_comes_from_the_note() {
        let current = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2", "c": "3"},
            "metadata": {"name": "m", "annotations": {LAST_APPLIED: r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","b":"2"},"metadata":{"name":"m"}}"#}}});
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "9"}, "metadata": {"name": "m"}});
        let found = difference(&current, &wanted, schema_of(&kinds::CONFIG_MAP)).expect("a patch");
        assert_eq!(found, json!({"data": {"a": "9", "b": null}}));
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}});
        assert!(difference(&current, &other, None).is_err());
    }

    #[test]
    fn r3_the_same_again_is_nothing() {
        let mut wanted =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "metadata": {"name": "m"}});
        wanted["metadata"]["annotations"] = json!({ LAST_APPLIED: note(&wanted) });
        let mut current = wanted.clone();
        current["metadata"]["uid"] = json!("u");
        assert_eq!(difference(&current, &wanted, schema_of(&kinds::CONFIG_MAP)).expect("a patch"), json!({}));
    }
}
