//! A session: one cluster, who asks it, in which namespace, and how it is printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use http::{HeaderValue, Method};
use serde_json::Value;
use tokio::sync::OnceCell;
use windlass_api::Kind;
use windlass_client::{Call, Client, ClientError, HttpsConfig, HttpsTransport};
use windlass_stdx::World;

use super::config::{Choice, Kubeconfig, Login};
use super::discovery::{self, Discovery};
use super::output::escape;
use super::output::paint::Paint;
use super::plugin;
use crate::place::Place;

/// How long a request may take unless told otherwise: long enough for the largest list.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Flags of every verb: which cluster, who asks, which namespace.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Cluster")]
pub struct SessionFlags {
    /// The namespace; the context's unless given
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The kubeconfig; KUBECONFIG, ~/.kube/config or this machine's own cluster unless given
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig's cluster, instead of the context's
    #[arg(long, global = true, hide_short_help = true)]
    pub cluster: Option<String>,
    /// The kubeconfig's user, instead of the context's
    #[arg(long, global = true, hide_short_help = true)]
    pub user: Option<String>,
    /// The API's URL
    #[arg(short, long, global = true, value_name = "URL", hide_short_help = true)]
    pub server: Option<String>,
    /// Bearer token
    #[arg(long, global = true, hide_short_help = true)]
    pub token: Option<String>,
    /// The certificates to trust, PEM
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub certificate_authority: Option<PathBuf>,
    /// Our certificate, PEM
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub client_certificate: Option<PathBuf>,
    /// Our key, PEM
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub client_key: Option<PathBuf>,
    /// Trust whoever answers at the URL
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure_skip_tls_verify: bool,
    /// Run the program that the kubeconfig names to get credentials
    #[arg(long, global = true, hide_short_help = true)]
    pub allow_exec_plugin: bool,
    /// How long one request may take, such as 30s
    #[arg(long, global = true, value_name = "TIME", value_parser = super::duration::parse, hide_short_help = true)]
    pub request_timeout: Option<Duration>,
}

/// One cluster and who asks it.
pub struct Session {
    /// Requests.
    pub client: Client,
    /// The link below it, for streams that stop being HTTP.
    pub transport: HttpsTransport,
    /// The namespace of what has none.
    pub namespace: String,
    /// Whether the namespace was said on the command line.
    pub namespace_given: bool,
    /// Colours.
    pub paint: Paint,
    discovery: OnceCell<Discovery>,
}

impl Session {
    /// Opens a session; nothing is sent yet.
    pub fn open(place: &Place, flags: &SessionFlags) -> Result<Session> {
        let login = login(place, flags)?;
        let config = HttpsConfig {
            server: login.server.clone(),
            ca_pem: login.ca_pem.clone().unwrap_or_default(),
            identity: login.identity.clone(),
        };
        let transport = match login.ca_pem {
            Some(_) => HttpsTransport::new(config)?,
            None => HttpsTransport::new_unverified(config)?,
        };
        let deadline = flags.request_timeout.filter(|time| !time.is_zero()).unwrap_or(REQUEST_TIMEOUT);
        let mut client = Client::new(Arc::new(transport.clone()), World::real()).named("cli").with_deadline(deadline);
        if let Some(authorization) = &login.authorization {
            let mut value =
                HeaderValue::from_str(authorization).context("the token holds characters that no header may")?;
            value.set_sensitive(true);
            client = client.authorized(value);
        }
        let namespace = flags.namespace.clone().or(login.namespace).unwrap_or_else(|| "default".to_owned());
        Ok(Session {
            client,
            transport,
            namespace,
            namespace_given: flags.namespace.is_some(),
            paint: Paint::of_stdout(),
            discovery: OnceCell::new(),
        })
    }

    /// What the server serves; asked once.
    pub async fn discovery(&self) -> Result<&Discovery> {
        self.discovery
            .get_or_try_init(async || {
                let ask = async |path: &str| self.json(Call::new(Method::GET, path).accept(discovery::accept())).await;
                Discovery::read(&ask("/api").await?, &ask("/apis").await?)
            })
            .await
    }

    /// One request, its answer as a tree; what the server warns of goes to standard error.
    pub async fn json(&self, call: Call) -> Result<Value> {
        let answer = self.client.send(call).await?;
        for warning in &answer.warnings {
            eprintln!("Warning: {}", escape::text(warning));
        }
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).context("the server's answer is not JSON")
    }

    /// One object.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value> {
        self.json(Call::new(Method::GET, object_path(kind, namespace, name))).await
    }

    /// One object, if there is one.
    pub async fn get_option(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        match self.get(kind, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects that a query selects, page by page. Items say what they are, as single objects do.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, query: &[(&str, &str)]) -> Result<Vec<Value>> {
        const PAGE: &str = "500";
        let path = kind.collection_path(namespace.map(windlass_client::segment).as_deref());
        let mut items = Vec::new();
        let mut from = String::new();
        loop {
            let page = [query, &[("limit", PAGE), ("continue", &from)]].concat();
            let mut list = self.json(Call::new(Method::GET, windlass_client::with_query(&path, &page))).await?;
            if let Some(page) = list.get_mut("items").and_then(Value::as_array_mut) {
                items.extend(page.drain(..).map(|item| with_kind(item, kind)));
            }
            from = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if from.is_empty() {
                return Ok(items);
            }
        }
    }

    /// The namespace that an object of this kind is looked for in.
    pub fn namespace_of<'s>(&'s self, kind: &Kind) -> &'s str {
        if kind.namespaced { &self.namespace } else { "" }
    }

    /// The namespace that a manifest means: its own, which a namespace on the command line must not contradict.
    pub fn namespace_for(&self, kind: &Kind, object: &Value) -> Result<String> {
        let own = object["metadata"]["namespace"].as_str().unwrap_or_default();
        if !kind.namespaced {
            return Ok(String::new());
        }
        if own.is_empty() {
            return Ok(self.namespace.clone());
        }
        if self.namespace_given && own != self.namespace {
            let given = &self.namespace;
            bail!(
                "the namespace from the provided object {own:?} does not match the namespace {given:?}. You must pass '--namespace={own}' to perform this operation."
            );
        }
        Ok(own.to_owned())
    }
}

fn login(place: &Place, flags: &SessionFlags) -> Result<Login> {
    let choice = Choice {
        context: flags.context.clone(),
        cluster: flags.cluster.clone(),
        user: flags.user.clone(),
        server: flags.server.clone(),
        token: flags.token.clone(),
        insecure: flags.insecure_skip_tls_verify,
        certificate_authority: flags.certificate_authority.clone(),
        client_certificate: flags.client_certificate.clone(),
        client_key: flags.client_key.clone(),
    };
    let paths = Kubeconfig::paths(flags.kubeconfig.as_deref(), &place.kubeconfig());
    let alone = paths.len() == 1 && paths[0] == place.kubeconfig() && !paths[0].exists();
    if alone && choice.server.is_none() {
        bail!(
            "there is no cluster to speak to: no kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config), and none runs here ({}); start one with `windlass up`",
            place.kubeconfig().display()
        );
    }
    let config = if alone { Kubeconfig::default() } else { Kubeconfig::load(&paths)? };
    let mut login = config.login(&choice)?;
    plugin::complete(&mut login, flags.allow_exec_plugin)?;
    Ok(login)
}

/// The URL of one object.
pub fn object_path(kind: &Kind, namespace: &str, name: &str) -> String {
    kind.object_path(&windlass_client::segment(namespace), &windlass_client::segment(name))
}

/// Whether the server said that there is no such object.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_not_found)
}

/// An item of a list, saying what it is.
pub fn with_kind(mut item: Value, kind: &Kind) -> Value {
    if let Some(map) = item.as_object_mut() {
        map.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        map.entry("kind").or_insert_with(|| kind.kind.to_string().into());
    }
    item
}
