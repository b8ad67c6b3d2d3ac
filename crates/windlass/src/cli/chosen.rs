//! The objects that a changing verb is about: named, chosen by a selector, or of files.

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;
use windlass_client::Call;

use super::discovery::Served;
use super::manifest::FileFlags;
use super::select::SelectFlags;
use super::session::{Session, object_path};
use super::target::Asked;

/// One object.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Its kind.
    pub served: Served,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What the words of a verb say.
pub struct Choice<'c> {
    /// KIND NAME…, KIND/NAME….
    pub words: &'c [String],
    /// Labels and fields.
    pub select: &'c SelectFlags,
    /// Files.
    pub files: &'c FileFlags,
    /// All objects of the kinds.
    pub all: bool,
}

impl Choice<'_> {
    /// The objects. A kind in a file that is not served is an error of its own, so that the rest can be done.
    pub async fn find(&self, session: &Session) -> Result<(Vec<Chosen>, Vec<anyhow::Error>)> {
        let discovery = session.discovery().await?;
        if !self.files.is_empty() {
            return self.of_files(session).await;
        }
        if self.words.is_empty() {
            bail!(
                "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'"
            );
        }
        let mut chosen = Vec::new();
        match Asked::read(discovery, self.words)? {
            Asked::Named(named) => {
                if self.select.is_narrow() || self.all {
                    bail!("name cannot be provided when a selector is specified");
                }
                for (served, name) in named {
                    let namespace = session.namespace_of(&served.kind).to_owned();
                    chosen.push(Chosen { served, namespace, name });
                }
            }
            Asked::Kinds(kinds) => {
                if !self.select.is_narrow() && !self.all {
                    bail!("resource(s) were provided, but no name was specified");
                }
                for served in kinds {
                    let namespace = self.select.namespace(session, &served.kind);
                    for object in session.list(&served.kind, namespace, &self.select.query()).await? {
                        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
                        let (namespace, name) = (text("namespace"), text("name"));
                        chosen.push(Chosen { served: served.clone(), namespace, name });
                    }
                }
            }
        }
        Ok((chosen, Vec::new()))
    }

    /// The objects, all of them or none.
    pub async fn find_all(&self, session: &Session) -> Result<Vec<Chosen>> {
        let (chosen, mut failed) = self.find(session).await?;
        if failed.is_empty() { Ok(chosen) } else { Err(failed.remove(0)) }
    }

    async fn of_files(&self, session: &Session) -> Result<(Vec<Chosen>, Vec<anyhow::Error>)> {
        let discovery = session.discovery().await?;
        let (mut chosen, mut failed) = (Vec::new(), Vec::new());
        for manifest in self.files.read()? {
            let served = match discovery.of_manifest(&manifest) {
                Ok(served) => served.clone(),
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            };
            let namespace = session.namespace_for(&served.kind, &manifest.object)?;
            let name = manifest.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            chosen.push(Chosen { served, namespace, name });
        }
        Ok((chosen, failed))
    }
}

impl Chosen {
    /// Its URL.
    pub fn path(&self) -> String {
        object_path(&self.served.kind, &self.namespace, &self.name)
    }

    /// `deployment.apps/web`.
    pub fn qualified(&self) -> String {
        format!("{}/{}", self.served.qualified(), self.name)
    }

    /// The object as it is.
    pub async fn get(&self, session: &Session) -> Result<Value> {
        session.json(Call::new(Method::GET, self.path())).await
    }
}
