//! `windlass image …`: the images on this machine, whether or not a cluster runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use windlass_runtime::Runtime;
use windlass_runtime::image::{Credentials, Images, Progress, PullOptions};
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
        ImageCommand::Pull { name, credentials } => {
            let options = PullOptions {
                credentials: credentials.as_deref().map(split_credentials).transpose()?,
                progress: Some(Arc::new(say_progress)),
                ..PullOptions::default()
            };
            let image = images.pull(&name, options).await.with_context(|| format!("cannot pull {name}"))?;
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

/// Says how far a pull is: one line for each thing that takes time.
fn say_progress(progress: Progress) {
    match progress {
        Progress::Started { layers: 0, .. } => eprintln!("all layers are here"),
        Progress::Started { layers, bytes } => eprintln!("fetching {layers} layers, {}", human_size(bytes)),
        Progress::Layer { bytes } => eprintln!("fetched a layer of {}", human_size(bytes)),
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
    Ok(Credentials { username: username.to_owned(), password: password.to_owned() })
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
    use super::human_size;

    #[test]
    fn sizes_read_like_those_of_other_tools() {
        assert_eq!([human_size(900), human_size(7_654_321), human_size(2_000_000_000)], ["0.9 kB", "7.7 MB", "2.0 GB"]);
    }
}
