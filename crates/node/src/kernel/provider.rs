//! Programs that provide credentials for registries (kubelet's credential providers).
//!
//! Source: Kubernetes documentation, "Configure a kubelet image credential provider"; credentialprovider.kubelet.k8s.io/v1.
//!
//! Rules
//!   R1 asked     a program is asked for images that one of its `matchImages` fits, by a request on its standard input
//!   R2 answer    each place of the answer is used for the images it fits, as in docker's config files
//!   R3 kept      an answer is kept for its image, its registry or every image, as long as it says or the config says
//!   R4 bounded   a program that takes longer than EXEC_TIMEOUT, fails or says too much is told of and passed over
//! Not here       service account tokens for programs (`tokenAttributes`): a config with them is refused

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::Instant;
use windlass_api::codec::{Limits, yaml};
use windlass_runtime::image::{Credentials, ImagePattern, Keyring, Reference};

const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";
const EXEC_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What a program complains that is kept.
const COMPLAINT_BYTES_MAX: u64 = 1 << 10;
/// Answers that are kept; beyond, the one that ends first goes.
const KEPT_MAX: usize = 1000;

/// Where providers are configured, as kubelet's flags say it.
#[derive(Clone, Debug)]
pub struct ProviderFiles {
    /// A `CredentialProviderConfig`.
    pub config: PathBuf,
    /// The directory with the programs.
    pub programs: PathBuf,
}

/// The programs of this machine, and what they answered.
#[derive(Debug, Default)]
pub struct Providers {
    list: Vec<Provider>,
    kept: Mutex<BTreeMap<(String, Key), Kept>>,
}

/// What an answer is kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

#[derive(Debug)]
struct Kept {
    until: Instant,
    keyring: Keyring,
}

#[derive(Debug)]
struct Provider {
    name: String,
    program: PathBuf,
    patterns: Vec<ImagePattern>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    kept_for: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    api_version: String,
    kind: String,
    providers: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: String,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    username: String,
    password: String,
}

impl Providers {
    /// Reads the configuration.
    pub fn open(files: &ProviderFiles) -> Result<Providers, String> {
        let read = || -> Result<Providers, String> {
            let text = std::fs::read(&files.config).map_err(|error| error.to_string())?;
            let value = yaml::decode(&text, Limits::default()).map_err(|error| error.to_string())?.value;
            Providers::read(value, &files.programs)
        };
        read().map_err(|why| format!("{}: {why}", files.config.display()))
    }

    fn read(value: Value, programs: &Path) -> Result<Providers, String> {
        let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if config.kind != "CredentialProviderConfig" || config.api_version != "kubelet.config.k8s.io/v1" {
            let (version, kind) = (config.api_version, config.kind);
            return Err(format!("expected kubelet.config.k8s.io/v1 CredentialProviderConfig, found {version} {kind}"));
        }
        let mut list: Vec<Provider> = Vec::new();
        for (number, value) in config.providers.into_iter().enumerate() {
            let provider = Provider::read(value, programs).map_err(|why| format!("providers[{number}]: {why}"))?;
            if list.iter().any(|other| other.name == provider.name) {
                return Err(format!("providers[{number}].name: {:?} is there twice", provider.name));
            }
            list.push(provider);
        }
        if list.is_empty() {
            return Err("providers: expected at least one, found none".to_owned());
        }
        Ok(Providers { list, kept: Mutex::default() })
    }

    /// What the programs have for this image.
    pub async fn find(&self, image: &Reference) -> Vec<Credentials> {
        let mut out = Vec::new();
        for provider in &self.list {
            if provider.patterns.iter().any(|pattern| pattern.matches(image)) {
                match self.of(provider, image).await {
                    Ok(found) => out.extend(found),
                    Err(why) => tracing::warn!(provider = provider.name, %image, why, "no credentials are provided"),
                }
            }
        }
        out
    }

    async fn of(&self, provider: &Provider, image: &Reference) -> Result<Vec<Credentials>, String> {
        let name = format!("{}/{}", image.registry, image.repository);
        let keys = [Key::Image(name.clone()), Key::Registry(image.registry.clone()), Key::Global];
        {
            let mut kept = self.kept.lock().expect("nothing panics while holding it");
            let now = Instant::now();
            kept.retain(|_, one| one.until > now);
            let found = keys.iter().find_map(|key| kept.get(&(provider.name.clone(), key.clone())));
            if let Some(found) = found {
                return Ok(found.keyring.find(image));
            }
        }
        let answer = provider.ask(&name).await?;
        let [of_image, of_registry, global] = keys;
        let key = match answer.cache_key_type.as_str() {
            "Image" => of_image,
            "Registry" => of_registry,
            "Global" => global,
            other => return Err(format!("cacheKeyType: expected Image, Registry or Global, found {other:?}")),
        };
        let mut keyring = Keyring::default();
        for (place, Auth { username, password }) in answer.auth.into_iter().flatten() {
            keyring.insert(&place, Credentials { username, password, owner: None })?;
        }
        let found = keyring.find(image);
        let kept_for = match answer.cache_duration {
            Some(text) => duration(&text).map_err(|why| format!("cacheDuration: {why}"))?,
            None => provider.kept_for,
        };
        if !kept_for.is_zero() {
            self.keep((provider.name.clone(), key), keyring, kept_for);
        }
        Ok(found)
    }

    fn keep(&self, key: (String, Key), keyring: Keyring, kept_for: Duration) {
        /// Longer is not needed: the program can be asked again.
        const KEPT_FOR_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
        let mut kept = self.kept.lock().expect("nothing panics while holding it");
        if kept.len() >= KEPT_MAX {
            let first = kept.iter().min_by_key(|(_, one)| one.until).map(|(key, _)| key.clone());
            first.and_then(|first| kept.remove(&first));
        }
        kept.insert(key, Kept { until: Instant::now() + kept_for.min(KEPT_FOR_MAX), keyring });
    }
}

impl Provider {
    fn read(value: Value, programs: &Path) -> Result<Provider, String> {
        let written: Written = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let name = written.name;
        if name.is_empty() || name.contains(['/', ' ']) || matches!(name.as_str(), "." | "..") {
            return Err(format!("name: expected the name of a program, found {name:?}"));
        }
        if written.api_version != PROTOCOL {
            return Err(format!("apiVersion: expected {PROTOCOL}, found {:?}", written.api_version));
        }
        if written.match_images.is_empty() {
            return Err("matchImages: expected at least one, found none".to_owned());
        }
        let patterns = written.match_images.iter().map(|text| ImagePattern::parse(text)).collect::<Result<_, _>>();
        let patterns = patterns.map_err(|why| format!("matchImages: {why}"))?;
        let kept_for = duration(&written.default_cache_duration);
        let kept_for = kept_for.map_err(|why| format!("defaultCacheDuration: {why}"))?;
        let env = written.env.into_iter().map(|variable| (variable.name, variable.value)).collect();
        Ok(Provider { program: programs.join(&name), name, patterns, args: written.args, env, kept_for })
    }

    async fn ask(&self, image: &str) -> Result<Answer, String> {
        let request = json!({"kind": "CredentialProviderRequest", "apiVersion": PROTOCOL, "image": image}).to_string();
        let asked = tokio::time::timeout(EXEC_TIMEOUT, self.run(request.as_bytes())).await;
        let text = asked.map_err(|_| format!("it did not answer within {EXEC_TIMEOUT:?}"))??;
        let answer: Answer = serde_json::from_slice(&text).map_err(|error| format!("its answer: {error}"))?;
        if answer.kind != "CredentialProviderResponse" || answer.api_version != PROTOCOL {
            let (version, kind) = (answer.api_version, answer.kind);
            return Err(format!("expected a {PROTOCOL} CredentialProviderResponse, found {version} {kind}"));
        }
        Ok(answer)
    }

    /// Dropped, it takes the program with it.
    async fn run(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        let say = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().cloned()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(say)?;
        let piped = "it was asked for a pipe";
        let mut stdin = child.stdin.take().expect(piped);
        let (stdout, stderr) = (child.stdout.take().expect(piped), child.stderr.take().expect(piped));
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(ANSWER_BYTES_MAX + 1), stderr);
        let asking = async move {
            // A program that does not want to know is not wrong: its answer counts.
            if let Err(error) = stdin.write_all(request).await {
                tracing::debug!(%error, "a credential provider did not read its request");
            }
            Ok(())
        };
        let answering = async {
            match stdout.read_to_end(&mut answer).await.map_err(say)? as u64 {
                0..=ANSWER_BYTES_MAX => Ok(()),
                _ => Err(format!("it answered more than {ANSWER_BYTES_MAX} bytes")),
            }
        };
        let complaining = async {
            (&mut stderr).take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await.map_err(say)?;
            // What is not kept is read all the same, or the program would wait.
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.map_err(say)
        };
        tokio::try_join!(asking, answering, complaining)?;
        let status = child.wait().await.map_err(say)?;
        if !status.success() {
            return Err(format!("it ended with {status}: {}", String::from_utf8_lossy(&complaint).trim()));
        }
        Ok(answer)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("expected a duration such as 12h or 5m0s, found {text:?}");
    let read: jiff::SignedDuration = text.parse().map_err(|_| refused())?;
    Duration::try_from(read).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::{Provider, Providers};
    use serde_json::json;
    use std::path::{Path, PathBuf};
    use std::time::Duration;
    use windlass_runtime::image::Reference;

    fn config(more: serde_json::Value) -> serde_json::Value {
        let mut provider = json!({"name": "provider", "matchImages": ["*.example/team", "other.example"],
            "defaultCacheDuration": "12h", "apiVersion": "credentialprovider.kubelet.k8s.io/v1"});
        provider.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]})
    }

    /// A directory with a shell as the program.
    fn programs(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("windlass-provider-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::os::unix::fs::symlink("/bin/sh", directory.join("provider")).expect("a link");
        directory
    }

    /// Arguments with which it writes down what it was asked, complains, and goes on as told.
    fn script(directory: &Path, answer: &str) -> serde_json::Value {
        let place = directory.display();
        json!([
            "-c",
            format!("cat >> {place}/asked; echo >> {place}/asked; echo \"$WORD $1\" >&2; {answer}"),
            "sh",
            "-x"
        ])
    }

    fn asked(directory: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(directory.join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn reference(name: &str) -> Reference {
        name.parse().expect("a name")
    }

    #[test]
    fn a_config_is_read_strictly() {
        let rows = [
            (json!({"name": "../x"}), "name: expected"),
            (json!({"matchImages": []}), "matchImages"),
            (json!({"defaultCacheDuration": "-1s"}), "defaultCacheDuration"),
            (json!({"apiVersion": "v1"}), "apiVersion"),
            (json!({"tokenAttributes": {}}), "unknown field `tokenAttributes`"),
        ];
        for (more, why) in rows {
            let error = Providers::read(config(more), Path::new("/x")).expect_err(why);
            assert!(error.contains("providers[0]") && error.contains(why), "{error}");
        }
        let read = Providers::read(config(json!({})), Path::new("/x")).expect("a good one");
        let Provider { program, kept_for, .. } = &read.list[0];
        assert_eq!((program.as_path(), *kept_for), (Path::new("/x/provider"), Duration::from_secs(12 * 3600)));
    }

    #[tokio::test]
    async fn a_program_is_asked_once_for_what_it_fits_and_its_answer_is_kept_as_it_says() {
        let rows = [("Registry", "1h", 1), ("Image", "1h", 2), ("Global", "1h", 1), ("Image", "0s", 3)];
        for (number, (key, duration, times)) in rows.into_iter().enumerate() {
            let answer = json!({"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
                "cacheKeyType": key, "cacheDuration": duration,
                "auth": {"a.example/team": {"username": "u", "password": "p"}, "*.evil": {"username": "x", "password": "y"}}});
            let directory = programs(&number.to_string());
            let args = script(&directory, &format!("echo '{answer}'"));
            let providers = Providers::read(config(json!({"args": args})), &directory).expect("a config");
            for image in ["a.example/team/app:v1", "a.example/team/other", "a.example/team/app:v2", "b.example/x"] {
                let found = providers.find(&reference(image)).await;
                let names: Vec<&str> = found.iter().map(|one| one.username.as_str()).collect();
                assert_eq!(names, if image.starts_with("a.") { vec!["u"] } else { vec![] }, "{image}");
            }
            let asked = asked(&directory);
            assert_eq!(asked.len(), times, "{key} {duration}: {asked:?}");
            let request: serde_json::Value = serde_json::from_str(&asked[0]).expect("JSON");
            assert_eq!(request["image"], "a.example/team/app", "{request}");
            std::fs::remove_dir_all(directory).expect("ours");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_is_passed_over_with_its_reason() {
        let rows = [
            ("exit 3", "exit status: 3: told -x"),
            ("echo '{'", "its answer"),
            ("head -c 2000000 /dev/zero", "more than"),
            ("echo '{\"kind\":\"X\",\"apiVersion\":\"v1\",\"cacheKeyType\":\"Image\"}'", "found v1 X"),
        ];
        for (number, (does, why)) in rows.into_iter().enumerate() {
            let directory = programs(&format!("bad{number}"));
            let args = script(&directory, does);
            let more = json!({"env": [{"name": "WORD", "value": "told"}], "args": args});
            let providers = Providers::read(config(more), &directory).expect("a config");
            let error = providers.list[0].ask("a.example/team/app").await.err().expect(why);
            assert!(error.contains(why), "{error}");
            assert!(providers.find(&reference("other.example/x")).await.is_empty());
            std::fs::remove_dir_all(directory).expect("ours");
        }
    }
}
