//! `windlass backup`: the cluster of this place in one file, while it runs or stands still.
//!
//! Rules
//!   R1 one moment   objects are of one revision, whoever writes meanwhile; a running server is asked for them (`GET
//!                   /windlass/v1/backup`), one that stands still is read from its directory
//!   R2 all or none  the file has its name when it is whole and on disk; whatever breaks off leaves none
//!   R3 kept close   only its owner may read the file, and one that is there is never written over
//! Not here          the contents of volumes, images, and what a node has of its pods

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use http::Method;
use http_body_util::BodyExt;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use windlass_apiserver::KeyFiles;
use windlass_apiserver::backup::{Manifest, begin};
use windlass_client::Call;
use windlass_stdx::{Body, World};
use windlass_store::{Config, RealDisk, Store, occupied};

use crate::admin;
use crate::archive::Writer;
use crate::place::{Place, Running};

/// How long the server may take for the next piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// A manifest is one line of this many bytes at most.
const MANIFEST_BYTES_MAX: usize = 16 << 10;

/// Makes a backup of what is here; `-` is standard output.
pub fn run(place: &Place, file: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let interrupted = async {
            // Without a handler the signal ends the process, and that is well too.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = interrupted => bail!("interrupted; no file is left"),
            done = make(place, file) => done,
        }
    })
}

async fn make(place: &Place, file: &Path) -> Result<()> {
    let source = Source::of(place).await?;
    let keys = KeyFiles::read(&place.pki()).context("cannot read the cluster's keys")?;
    if file == Path::new("-") {
        ensure!(!io::stdout().is_terminal(), "expected a file or a pipe for the backup, found a terminal");
        let (_, size) = source.write(io::stdout().lock(), &keys).await?;
        eprintln!("{size} bytes");
        return Ok(());
    }
    let target = Target::create(file)?;
    let (revision, size) = source.write(BufWriter::new(&target.file), &keys).await?;
    target.keep(file)?;
    println!(
        "{}: the cluster at revision {revision}, {size} bytes; whoever has it has the cluster's keys",
        file.display()
    );
    Ok(())
}

/// Where the objects come from.
enum Source {
    /// A running server, and what it has said beyond its manifest.
    Server {
        manifest: Manifest,
        body: Body,
        rest: BytesMut,
    },
    Directory(Store),
}

impl Source {
    async fn of(place: &Place) -> Result<Source> {
        if let Some(running) = place.running() {
            return Source::server(place, &running).await;
        }
        let there = occupied(&place.store(), &RealDisk).context("cannot read the store")?;
        let Some(there) = there.filter(|there| there.cluster.is_some()) else {
            bail!("{} has no cluster: give another --instance or --data-dir", place.data.display());
        };
        // The store takes the lock itself.
        drop(there);
        let opened = Store::open(Config::new(place.store()), Arc::new(RealDisk), World::real()).await;
        Ok(Source::Directory(opened.context("cannot open the store")?))
    }

    async fn server(place: &Place, running: &Running) -> Result<Source> {
        if running.role == "node" {
            bail!("this machine is a node of {}; back the cluster up on its server's machine", running.server);
        }
        let call = Call::new(Method::GET, "/windlass/v1/backup").accept("*/*");
        let opened = admin::client(place, running)?.open(call).await;
        let mut body = opened.with_context(|| format!("{} gives no backup", running.server))?;
        let mut said = BytesMut::new();
        let end = loop {
            if let Some(end) = said.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            ensure!(said.len() <= MANIFEST_BYTES_MAX, "{} answers with something else than a backup", running.server);
            match next(&mut body).await? {
                Some(piece) => said.extend_from_slice(&piece),
                None => bail!("{} ended its answer in the middle", running.server),
            }
        };
        let line = said.split_to(end + 1);
        let manifest = serde_json::from_slice(&line).context("the server runs another version of windlass")?;
        Ok(Source::Server { manifest, body, rest: said })
    }

    /// Writes all; returns the revision and the size.
    async fn write(self, to: impl Write, keys: &KeyFiles) -> Result<(u64, u64)> {
        const CANNOT: &str = "cannot write the backup";
        match self {
            Source::Server { manifest, mut body, rest } => {
                let mut writer = Writer::begin(to, &manifest, keys).context(CANNOT)?;
                writer.write(&rest).context(CANNOT)?;
                while let Some(piece) = next(&mut body).await? {
                    writer.write(&piece).context(CANNOT)?;
                }
                Ok((manifest.revision, writer.end().context(CANNOT)?.1))
            }
            Source::Directory(store) => {
                let (manifest, mut export) = begin(&store, &World::real()).context("the store is empty")?;
                let mut writer = Writer::begin(to, &manifest, keys).context(CANNOT)?;
                while let Some(piece) = export.read().context("cannot read the store")? {
                    writer.write(&piece).context(CANNOT)?;
                }
                let size = writer.end().context(CANNOT)?.1;
                store.close().await;
                Ok((manifest.revision, size))
            }
        }
    }
}

async fn next(body: &mut Body) -> Result<Option<bytes::Bytes>> {
    loop {
        let frame = tokio::time::timeout(PIECE_TIMEOUT, body.frame()).await;
        let frame = frame.with_context(|| format!("the server said nothing for {} s", PIECE_TIMEOUT.as_secs()))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => bail!("the server's answer broke off: {error}"),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// A file that is not there yet (R2). Dropped, it never was.
struct Target {
    file: File,
    part: PathBuf,
}

impl Target {
    fn create(path: &Path) -> Result<Target> {
        let name = path.file_name().with_context(|| format!("{}: expected the name of a file", path.display()))?;
        if fs::symlink_metadata(path).is_ok() {
            bail!("{} is there already: choose another name, or remove it", path.display());
        }
        let part = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        Ok(Target { file: file.with_context(|| format!("cannot write {}", part.display()))?, part })
    }

    fn keep(self, path: &Path) -> Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
        match renameat_with(CWD, &self.part, CWD, path, RenameFlags::NOREPLACE) {
            // Not all file systems know this.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if fs::symlink_metadata(path).is_err() => {
                fs::rename(&self.part, path)
            }
            renamed => renamed.map_err(io::Error::from),
        }
        .with_context(|| format!("cannot give the backup its name {}", path.display()))?;
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .context("cannot make the backup's name durable")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.part)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("warning: {} was left behind: {error}", self.part.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("windlass-backup-{name}-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory of our own");
        directory
    }

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).expect("a directory").count()
    }

    #[test]
    fn r2_a_file_has_its_name_when_it_is_whole_and_otherwise_there_is_none() {
        let directory = directory("name");
        let path = directory.join("file");
        let target = Target::create(&path).expect("a new file");
        (&target.file).write_all(b"half").expect("it is writable");
        assert!(!path.exists());
        drop(target);
        assert_eq!(names(&directory), 0);
        let target = Target::create(&path).expect("a new file");
        (&target.file).write_all(b"whole").expect("it is writable");
        target.keep(&path).expect("the name is free");
        assert_eq!((fs::read(&path).expect("it is there"), names(&directory)), (b"whole".to_vec(), 1));
        fs::remove_dir_all(&directory).expect("our own directory");
    }

    #[test]
    fn r3_only_its_owner_reads_it_and_it_is_never_written_over() {
        let directory = directory("close");
        let path = directory.join("file");
        let target = Target::create(&path).expect("a new file");
        let mode = target.file.metadata().expect("it is open").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "somebody else's").expect("our own directory");
        assert!(target.keep(&path).is_err(), "it came in between");
        assert!(Target::create(&path).is_err(), "it is there");
        fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink("/nowhere", &path).expect("our own directory");
        assert!(Target::create(&path).is_err(), "a link that leads nowhere is there too");
        assert_eq!((fs::read_link(&path).expect("a link"), names(&directory)), (PathBuf::from("/nowhere"), 1));
        fs::remove_dir_all(&directory).expect("our own directory");
    }
}
