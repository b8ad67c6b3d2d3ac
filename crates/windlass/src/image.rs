//! `windlass image …`: the images on this machine, whether or not a cluster runs.

#![expect(clippy::disallowed_methods, reason = "a person at a terminal has real time")]

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use windlass_runtime::Runtime;
use windlass_runtime::image::{Credentials, Images, Keyring, Progress, PullOptions, Tell};
use windlass_stdx::World;

use crate::cli::ImageCommand;
use crate::place::Place;

/// Carries out one image command.
pub fn run(place: &Place, command: ImageCommand) -> Result<()> {
    place.create()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start")?;
    runtime.block_on(carry_out(place, command))
}

async fn carry_out(place: &Place, command: ImageCommand) -> Result<()> {
    let images = Images::open(place.images(), World::real()).context("cannot open the images")?;
    match command {
        ImageCommand::Import { path, name } => {
            let imported = images
                .import(&path, name.as_deref())
                .await
                .with_context(|| format!("cannot import {}", path.display()))?;
            for image in imported {
                println!("imported {}  {}", image.names.join(" "), short(&image.id));
            }
        }
        ImageCommand::Pull { name, credentials, auth_file } => {
            let registries = windlass_node::registries::load(&windlass_node::registries::path(&place.data));
            let mut registries = registries.map_err(anyhow::Error::msg)?;
            if let Some(path) = auth_file {
                let refused = || format!("--auth-file {}", path.display());
                let bytes = std::fs::read(&path).with_context(refused)?;
                let keyring = Keyring::read_config(&bytes, None).map_err(anyhow::Error::msg).with_context(refused)?;
                registries = registries.with_keyring(keyring);
            }
            let credentials = credentials.as_deref().map(split_credentials).transpose()?.into_iter().collect();
            let shown = Arc::new(Shown::new());
            let tell: Tell = {
                let shown = shown.clone();
                Arc::new(move |progress| shown.say(progress))
            };
            let options = PullOptions {
                credentials,
                registries: Arc::new(registries),
                progress: Some(tell),
                ..PullOptions::default()
            };
            let pulled = images.pull(&name, options).await;
            shown.end();
            let image = pulled.with_context(|| format!("cannot pull {name}"))?;
            println!("pulled {}  {}", image.names.join(" "), short(&image.id));
        }
        ImageCommand::List => {
            println!("{:<56} {:<14} {:>10}", "NAME", "ID", "SIZE");
            for image in images.list().context("cannot list the images")? {
                for name in &image.names {
                    println!("{name:<56} {:<14} {:>10}", short(&image.id), human_size(image.size));
                }
            }
        }
        ImageCommand::Rm { name } => {
            let in_use = in_use(place, &images)?;
            let freed = images.remove(&name, &in_use).await.with_context(|| format!("cannot remove {name}"))?;
            println!("removed {name}; {} freed", human_size(freed.bytes));
        }
    }
    Ok(())
}

/// How far a pull is, where a person looks: on a terminal one line that changes, elsewhere a line for each layer.
struct Shown {
    on_terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layers here and wanted.
    layers: (usize, usize),
    /// Bytes here and wanted.
    bytes: (u64, u64),
    began: Option<Instant>,
    told: Option<Instant>,
}

/// How often the line on the terminal changes.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

impl Shown {
    fn new() -> Shown {
        Shown { on_terminal: std::io::stderr().is_terminal(), state: Mutex::default() }
    }

    fn say(&self, progress: Progress) {
        let mut state = self.state.lock().expect("nothing panics while holding it");
        let now = Instant::now();
        match progress {
            Progress::Started { layers: 0, .. } => eprintln!("all layers are here"),
            Progress::Started { layers, bytes } => {
                *state = State { layers: (0, layers), bytes: (0, bytes), began: Some(now), told: None };
                eprintln!("fetching {layers} layers, {}", human_size(bytes));
            }
            Progress::Bytes { bytes } => state.bytes.0 += bytes,
            Progress::Layer { bytes } => {
                state.layers.0 += 1;
                if !self.on_terminal {
                    eprintln!("fetched a layer of {}", human_size(bytes));
                }
            }
        }
        let is_due = state.told.is_none_or(|told| now.duration_since(told) >= SHOWN_EVERY);
        if self.on_terminal && is_due && state.began.is_some() {
            state.told = Some(now);
            eprint!("\r{}\x1b[K", state.line(now));
        }
    }

    /// The line stays as it was last.
    fn end(&self) {
        let state = self.state.lock().expect("nothing panics while holding it");
        if self.on_terminal && state.began.is_some() {
            eprintln!("\r{}\x1b[K", state.line(Instant::now()));
        }
    }
}

impl State {
    fn line(&self, now: Instant) -> String {
        let seconds = self.began.map_or(0.0, |began| now.duration_since(began).as_secs_f64());
        let rate = if seconds > 0.0 { (self.bytes.0 as f64 / seconds) as u64 } else { 0 };
        let percent = (self.bytes.0 * 100).checked_div(self.bytes.1).unwrap_or(100).min(100);
        let (bytes, rate) = (human_size(self.bytes.0), human_size(rate));
        format!("{percent:3} %  {bytes}  {rate}/s  layers {}/{}", self.layers.0, self.layers.1)
    }
}

/// The images whose layers a container is made of: they keep their layers even without a name.
fn in_use(place: &Place, images: &Images) -> Result<BTreeSet<String>> {
    let layers = Runtime::layers_in_use(&place.runtime()).context("cannot look at the containers")?;
    let mut in_use = BTreeSet::new();
    for record in images.list().context("cannot list the images")? {
        let image = images.find(&record.id).context("cannot read an image")?;
        if image.is_some_and(|image| image.layers.iter().any(|layer| layers.contains(layer))) {
            in_use.insert(record.id);
        }
    }
    Ok(in_use)
}

fn split_credentials(text: &str) -> Result<Credentials> {
    let (username, password) = text.split_once(':').context("--credentials: expected USER:PASSWORD")?;
    Ok(Credentials { username: username.to_owned(), password: password.to_owned(), owner: None })
}

fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    &digits[..digits.len().min(12)]
}

fn human_size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{State, human_size};
    use std::time::{Duration, Instant};

    #[test]
    fn sizes_read_like_those_of_other_tools() {
        assert_eq!([human_size(900), human_size(7_654_321), human_size(2_000_000_000)], ["0.9 kB", "7.7 MB", "2.0 GB"]);
    }

    #[test]
    fn a_pull_says_how_much_of_it_is_here() {
        let began = Instant::now();
        let state = State { layers: (1, 3), bytes: (50_000_000, 200_000_000), began: Some(began), told: None };
        assert_eq!(state.line(began + Duration::from_secs(2)), " 25 %  50.0 MB  25.0 MB/s  layers 1/3");
    }
}
