//! `windlass edit`: objects in an editor, and what was changed in them as a patch.
//!
//! Rules
//!   R1 editor    the person's own, on a file that nobody else may read (`editor`)
//!   R2 nothing   a file without a change, or without a line, ends the edit
//!   R3 patch     only what was changed is sent: who changed another field meanwhile keeps his change
//!   R4 identity  apiVersion, kind, name and namespace cannot be changed
//!   R5 again     what cannot be read or is invalid is edited again, the reasons at the top; the same once more ends it
//!   R6 kept      edits that were not taken stay in the file, and its name is said
//! Not here       `--save-config`, `--show-managed-fields`
//! Source: Kubernetes docs, "kubectl edit"

mod editor;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;
use windlass_api::merge::three_way;
use windlass_client::{Call, ClientError, segment, with_query};

use self::editor::Editor;
use self::text::{Reason, has_lines, headed, same, without_head};
use super::apply::{media_of, schema_of};
use super::chosen::{Choice, Chosen};
use super::failure::Said;
use super::manifest::{self, FileFlags, Manifest};
use super::output::{escape, json, object, yaml};
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};
use super::write::Validate;

/// `windlass edit`.
#[derive(Args)]
pub struct EditFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME…, KIND/NAME…, or KIND for all of it
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub select: SelectFlags,
    #[command(flatten)]
    pub files: FileFlags,
    /// The language that is edited
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub output: Language,
    /// The part that is edited, such as status
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
    /// Show the patch that is sent
    #[arg(long)]
    pub output_patch: bool,
    /// Who owns the fields that are set
    #[arg(long, value_name = "NAME", default_value = "kubectl-edit")]
    pub field_manager: String,
    /// What happens to unknown and duplicate fields: strict refuses, warn says, ignore drops
    #[arg(long, value_enum, default_value = "strict", default_missing_value = "strict", num_args = 0..=1, require_equals = true)]
    pub validate: Validate,
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Yaml,
    Json,
}

impl Language {
    fn print(self, object: &Value) -> String {
        match self {
            Language::Yaml => yaml::print(object),
            Language::Json => json::pretty(object),
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Language::Yaml => "yaml",
            Language::Json => "json",
        }
    }
}

/// An object as it was before it was edited.
struct Original {
    chosen: Chosen,
    object: Value,
}

/// Does it.
pub async fn run(session: &Session, flags: &EditFlags) -> Result<()> {
    // a kind alone means all of it, as kubectl has it here
    let all = flags.words.len() == 1 && !flags.words[0].contains('/') && !flags.select.is_narrow();
    let choice = Choice { words: &flags.words, select: &flags.select, files: &flags.files, all };
    let mut originals = Vec::new();
    for chosen in choice.find_all(session).await? {
        let mut object = session.json(Call::new(Method::GET, path(&chosen, flags))).await?;
        object::hide_managed_fields(&mut object);
        originals.push(Original { chosen, object });
    }
    if originals.is_empty() {
        bail!("edit cancelled, no objects found");
    }
    let editing = Editing { session, flags, editor: Editor::of_environment(), originals };
    let mut kept = None;
    let ended = editing.run(&mut kept).await;
    if let Err(error) = &ended
        && !error.is::<Said>()
        && let Some(file) = kept.filter(|file| file.exists())
    {
        eprintln!("A copy of your changes has been stored to {:?}", file.display().to_string());
    }
    ended
}

fn path(chosen: &Chosen, flags: &EditFlags) -> String {
    match flags.subresource.as_str() {
        "" => chosen.path(),
        part => format!("{}/{}", chosen.path(), segment(part)),
    }
}

struct Editing<'e> {
    session: &'e Session,
    flags: &'e EditFlags,
    editor: Editor,
    originals: Vec<Original>,
}

/// What has come of sending the edits.
#[derive(Default)]
struct Outcome {
    /// Of those that are to be edited again.
    reasons: Vec<Reason>,
    gone: bool,
    refused: bool,
}

impl Editing<'_> {
    /// `kept` is the file that holds the person's edits, as long as there is one.
    async fn run(&self, kept: &mut Option<PathBuf>) -> Result<()> {
        let mut objects: Vec<Value> = self.originals.iter().map(|original| original.object.clone()).collect();
        let shown = if objects.len() == 1 { objects.remove(0) } else { object::list_of(objects) };
        let original = self.flags.output.print(&shown);
        let (mut edited, mut reasons) = (String::new(), Vec::<Reason>::new());
        loop {
            let body = if reasons.is_empty() { &original } else { without_head(&edited) };
            let file = self.editor.file(self.session, &headed(&reasons, body), self.flags.output.ending())?;
            let earlier = kept.replace(file.clone());
            let before = std::mem::replace(&mut edited, self.editor.edit(&file)?);
            remove(earlier);
            if !reasons.is_empty() && same(&before, &edited) {
                bail!("Edit cancelled, no valid changes were saved.");
            }
            // R2.
            if same(&original, &edited) || !has_lines(&edited) {
                let why = if has_lines(&edited) { "no changes made" } else { "saved file was empty" };
                eprintln!("Edit cancelled, {why}.");
                remove(kept.take());
                return Ok(());
            }
            let manifests = match manifest::read_text(&edited, &file.display().to_string()) {
                Ok(manifests) => manifests,
                Err(error) => {
                    eprintln!("error: {} is invalid", escape::text(&subject(&self.originals[0].chosen)));
                    let head = format!("The edited file had a syntax error: {error:#}");
                    reasons = vec![Reason { head, others: Vec::new() }];
                    continue;
                }
            };
            let outcome = self.send(&manifests).await?;
            if outcome.refused {
                eprintln!("You can run `windlass apply -f {}` to try this update again.", file.display());
                return Err(Said.into());
            }
            if outcome.gone {
                eprintln!(
                    "The edits you made on deleted resources have been saved to {:?}",
                    file.display().to_string()
                );
                return Err(Said.into());
            }
            if outcome.reasons.is_empty() {
                remove(kept.take());
                return Ok(());
            }
            reasons = outcome.reasons;
        }
    }

    async fn send(&self, manifests: &[Manifest]) -> Result<Outcome> {
        let mut changes = Vec::new();
        for manifest in manifests {
            changes.push((self.original_of(manifest)?, &manifest.object));
        }
        let mut outcome = Outcome::default();
        for (original, edited) in changes {
            let chosen = &original.chosen;
            if original.object == *edited {
                println!("{} skipped", chosen.qualified());
            } else if let Err(error) = self.send_one(original, edited).await {
                outcome.add(chosen, &error);
            }
        }
        Ok(outcome)
    }

    /// R4.
    fn original_of(&self, manifest: &Manifest) -> Result<&Original> {
        let edited = &manifest.object;
        let uid = &edited["metadata"]["uid"];
        let found = self.originals.iter().find(|original| original.object["metadata"]["uid"] == *uid);
        let Some(original) = found.filter(|_| uid.is_string()) else {
            bail!("no original object found for {}: an edit cannot add one", object::name(edited));
        };
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            if edited.pointer(field) != original.object.pointer(field) {
                bail!("At least one of apiVersion, kind and name was changed");
            }
        }
        let (before, after) = (&original.object["metadata"]["namespace"], &edited["metadata"]["namespace"]);
        if before != after {
            let shown = |namespace: &Value| namespace.as_str().unwrap_or_default().to_owned();
            let (before, after) = (shown(before), shown(after));
            bail!("the namespace from the provided object {after:?} does not match the namespace {before:?}");
        }
        Ok(original)
    }

    /// R3.
    async fn send_one(&self, original: &Original, edited: &Value) -> Result<()> {
        let kind = &original.chosen.served.kind;
        let message = schema_of(kind);
        let patch = three_way(&original.object, &original.object, edited, message);
        if self.flags.output_patch {
            println!("Patch: {}", escape::text(&json::compact(&patch)));
        }
        let media = media_of(message);
        let query = [("fieldManager", self.flags.field_manager.as_str()), self.flags.validate.query()];
        let call = Call::new(Method::PATCH, with_query(&path(&original.chosen, self.flags), &query));
        self.session.json(call.body(media, serde_json::to_vec(&patch)?)).await?;
        println!("{} edited", original.chosen.qualified());
        Ok(())
    }
}

impl Outcome {
    fn add(&mut self, chosen: &Chosen, error: &anyhow::Error) {
        let subject = subject(chosen);
        let said = match error.downcast_ref::<ClientError>() {
            Some(ClientError::Api(refusal)) if refusal.code() == 422 => {
                let others = refusal.details.causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message));
                let head = format!("{subject} was not valid");
                self.reasons.push(Reason { head, others: others.collect() });
                format!("error: {subject} is invalid")
            }
            Some(refusal) if refusal.is_not_found() => {
                self.gone = true;
                format!("error: {subject} could not be found on the server")
            }
            _ => {
                self.refused = true;
                format!("error: {subject} could not be patched: {error:#}")
            }
        };
        eprintln!("{}", escape::text(&said));
    }
}

fn subject(chosen: &Chosen) -> String {
    format!("{} {:?}", chosen.served.kind.qualified_plural(), chosen.name)
}

fn remove(file: Option<impl AsRef<Path>>) {
    if let Some(file) = file
        && let Err(error) = std::fs::remove_file(&file)
    {
        // The edit itself is done.
        eprintln!("{}", anyhow!(error).context(format!("cannot remove {}", file.as_ref().display())));
    }
}
