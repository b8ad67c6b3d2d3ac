//! `windlass patch`: a change of objects, as a patch says it.
//!
//! Rules
//!   R1 patch   in JSON or YAML, from `-p` or a file
//!   R2 type    strategic unless said; custom kinds know no strategic merge and say so
//!   R3 part    `--subresource` changes a part, such as status
//! Not here     `--local`

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;
use windlass_api::codec::{Limits, yaml};
use windlass_client::{Call, with_query};

use super::apply::{say_done, schema_of};
use super::chosen::{Choice, Chosen};
use super::get::all_said;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, SessionFlags};
use super::write::WriteFlags;

/// `windlass patch`.
#[derive(Args)]
pub struct PatchFlags {
    #[command(flatten)]
    pub session: SessionFlags,
    /// KIND NAME… or KIND/NAME…
    #[arg(value_name = "WHAT")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileFlags,
    #[command(flatten)]
    pub write: WriteFlags,
    /// The patch, in JSON or YAML
    #[arg(short, long, conflicts_with = "patch_file")]
    pub patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE")]
    pub patch_file: Option<String>,
    /// How the patch is meant
    #[arg(long = "type", value_enum, default_value = "strategic")]
    pub how: How,
    /// The part that is changed, such as status or scale
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
}

/// `--type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    Strategic,
    Merge,
    Json,
}

/// Does it.
pub async fn run(session: &Session, flags: &PatchFlags) -> Result<()> {
    let text = match (&flags.patch, &flags.patch_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("could not read {file:?}"))?,
        (None, None) => bail!("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let patch = read(&text, flags.how)?;
    let select = SelectFlags::default();
    let choice = Choice { words: &flags.words, select: &select, files: &flags.files, all: false };
    let chosen = choice.find_all(session).await?;
    if chosen.is_empty() {
        bail!("no objects passed to patch");
    }
    let mut failed = Vec::new();
    for object in &chosen {
        if let Err(error) = change(session, flags, &patch, object).await {
            failed.push(error);
        }
    }
    all_said(failed)
}

/// R1.
fn read(text: &str, how: How) -> Result<Value> {
    let patch = yaml::decode(text.as_bytes(), Limits::default()).context("the patch is neither JSON nor YAML")?.value;
    match how {
        How::Json if !patch.is_array() => bail!("expected a list of operations for a patch of type json"),
        How::Strategic | How::Merge if !patch.is_object() => bail!("expected an object for a patch of type {how:?}"),
        _ => Ok(patch),
    }
}

async fn change(session: &Session, flags: &PatchFlags, patch: &Value, object: &Chosen) -> Result<()> {
    if flags.how == How::Strategic && schema_of(&object.served.kind).is_none() {
        bail!("{} knows no strategic merge: use --type=merge or --type=json", object.served.kind.qualified_plural());
    }
    let before = object.get(session).await?;
    if flags.write.dry_run.is_client() {
        return say_done(&before, "patched", &flags.write);
    }
    let media = match flags.how {
        How::Strategic => "application/strategic-merge-patch+json",
        How::Merge => "application/merge-patch+json",
        How::Json => "application/json-patch+json",
    };
    let mut path = object.path();
    if !flags.subresource.is_empty() {
        path = format!("{path}/{}", windlass_client::segment(&flags.subresource));
    }
    let call = Call::new(Method::PATCH, with_query(&path, &flags.write.query("kubectl-patch")));
    let after = session.json(call.body(media, serde_json::to_vec(patch)?)).await?;
    let is_same = after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"];
    say_done(&after, if is_same { "patched (no change)" } else { "patched" }, &flags.write)
}

#[cfg(test)]
mod tests {
    use super::{How, read};
    use serde_json::json;

    #[test]
    fn r1_a_patch_is_json_or_yaml_of_its_type() {
        assert_eq!(read("{\"spec\": {\"replicas\": 2}}", How::Merge).expect("JSON"), json!({"spec": {"replicas": 2}}));
        assert_eq!(read("spec: {replicas: 2}", How::Strategic).expect("YAML"), json!({"spec": {"replicas": 2}}));
        assert!(read("[{\"op\": \"remove\", \"path\": \"/a\"}]", How::Json).is_ok());
        assert!(read("[]", How::Merge).is_err() && read("{}", How::Json).is_err() && read("{", How::Merge).is_err());
    }
}
