//! A backup's file: what makes a cluster itself, in one piece that is whole or refused.
//!
//! Form  magic · format u32 · manifest (length u32, JSON) · keys (length u32, JSON) · the store's export, which says where
//!       it ends · length of all before it u64 · SHA-256 of all before it. Numbers are little-endian
//!
//! Rules
//!   R1 no paths    nothing in it is a file: there is no name that could lead out, no link, no device, nothing twice
//!   R2 versions    another format or schema than this program's is refused, and who made it is said
//!   R3 bounded     manifest and keys have their bounds; the state has the size that the manifest says, which must fit into
//!                  this machine's memory, before anything of it is unpacked and while it is
//!   R4 whole       length and SHA-256 are those of what was read; nothing follows them
//! Not here         who wrote it: SHA-256 finds damage, not forgery. Whoever can write the file can be the cluster's owner,
//!                  so it is kept as the keys are

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use windlass_apiserver::KeyFiles;
use windlass_apiserver::backup::{Manifest, SCHEMA, what_is_wrong};
use windlass_store::Import;

const MAGIC: &[u8; 8] = b"WLBACKUP";
/// The form of the file, as the header describes it.
const FORMAT: u32 = 1;
/// A manifest is some short lines.
const MANIFEST_BYTES_MAX: usize = 16 << 10;
/// The keys are some kilobytes of PEM.
const KEYS_BYTES_MAX: usize = 256 << 10;
/// Bytes after the state.
const TRAILER_BYTES: usize = 8 + 32;
/// The file is read in pieces of this size.
const READ_BYTES: u64 = 256 << 10;
/// Memory that an entry takes beside its key and value.
const ENTRY_OVERHEAD_BYTES: u64 = 512;
/// Entries are held as they were read and as they are written.
const COPIES: u64 = 2;

/// What a backup's file holds. Who has one has read all of it.
pub struct Archive {
    pub manifest: Manifest,
    pub keys: KeyFiles,
    pub state: Import,
}

/// Writes a file, in order and once.
pub struct Writer<W> {
    to: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn begin(to: W, manifest: &Manifest, keys: &KeyFiles) -> Result<Writer<W>> {
        let mut writer = Writer { to, hash: Sha256::new(), written: 0 };
        writer.write(MAGIC)?;
        writer.write(&FORMAT.to_le_bytes())?;
        for part in [serde_json::to_vec(manifest)?, serde_json::to_vec(keys)?] {
            writer.write(&u32::try_from(part.len())?.to_le_bytes())?;
            writer.write(&part)?;
        }
        Ok(writer)
    }

    /// The next bytes of the state.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Ends the file; gives back where it was written to, and its size.
    pub fn end(mut self) -> io::Result<(W, u64)> {
        self.to.write_all(&self.written.to_le_bytes())?;
        self.to.write_all(&self.hash.finalize())?;
        self.to.flush()?;
        Ok((self.to, self.written + TRAILER_BYTES as u64))
    }
}

impl Archive {
    /// Reads a whole file. `accept` says from its manifest whether this is the one that is wanted; `memory_bytes` is what
    /// there is for what it holds.
    pub fn read(from: impl Read, memory_bytes: u64, accept: impl FnOnce(&Manifest) -> Result<()>) -> Result<Archive> {
        let mut body = Body { from, buffer: Vec::new(), start: 0, hash: Sha256::new(), given: 0 };
        let manifest = read_manifest(&mut body)?;
        accept(&manifest)?;
        let need = manifest
            .entries
            .checked_mul(ENTRY_OVERHEAD_BYTES)
            .and_then(|overhead| overhead.checked_add(manifest.bytes)?.checked_mul(COPIES));
        ensure!(
            need.is_some_and(|need| need <= memory_bytes),
            "it holds {} entries of {} bytes together, for which this machine has not enough memory free ({memory_bytes} \
             bytes); restore it on a larger one",
            manifest.entries,
            manifest.bytes
        );
        let keys = part(&mut body, "keys", KEYS_BYTES_MAX)?;
        let keys: KeyFiles = serde_json::from_slice(&keys).map_err(|error| anyhow::anyhow!("its keys: {error}"))?;
        keys.check().context("its keys cannot be used")?;
        let state = Import::read(&mut body, &manifest.cluster, (manifest.entries, manifest.bytes))?;
        ensure!(
            (state.revision(), state.entries().len() as u64, state.bytes())
                == (manifest.revision, manifest.entries, manifest.bytes),
            "it does not hold what it says: expected {} entries of {} bytes at revision {}, found {} of {} at {}",
            manifest.entries,
            manifest.bytes,
            manifest.revision,
            state.entries().len(),
            state.bytes(),
            state.revision()
        );
        body.check_trailer()?;
        for entry in state.entries() {
            if let Some(why) = what_is_wrong(entry) {
                bail!("the entry {:?}: {why}", entry.key());
            }
        }
        Ok(Archive { manifest, keys, state })
    }
}

/// R2, R3.
fn read_manifest(body: &mut impl Read) -> Result<Manifest> {
    let mut magic = [0; MAGIC.len()];
    let begun = body.read_exact(&mut magic);
    ensure!(begun.is_ok() && &magic == MAGIC, "it is no backup that `windlass backup` made");
    let format = number(body)?;
    ensure!(
        format == FORMAT,
        "it has format {format}, and this windlass ({}) reads format {FORMAT}; restore it with the one that made it",
        env!("CARGO_PKG_VERSION")
    );
    let manifest: Manifest = serde_json::from_slice(&part(body, "manifest", MANIFEST_BYTES_MAX)?)
        .map_err(|error| anyhow::anyhow!("its manifest: {error}"))?;
    // They are shown, and one is written to a file of lines.
    for (name, text) in [("cluster", &manifest.cluster), ("windlass", &manifest.windlass)] {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte));
        ensure!(is_plain && (1..=64).contains(&text.len()), "its manifest: {name}: expected a plain word of 1 to 64");
    }
    ensure!(
        manifest.schema == SCHEMA,
        "its objects are stored in form {}, by windlass {}, and this one ({}) reads form {SCHEMA}; restore it with that \
         one, and let this one take the cluster over from there",
        manifest.schema,
        manifest.windlass,
        env!("CARGO_PKG_VERSION")
    );
    Ok(manifest)
}

fn number(body: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    body.read_exact(&mut bytes).context("it is cut off")?;
    Ok(u32::from_le_bytes(bytes))
}

/// A part after its length.
fn part(body: &mut impl Read, name: &str, bytes_max: usize) -> Result<Vec<u8>> {
    let length = number(body)? as usize;
    ensure!(length <= bytes_max, "its {name}: expected at most {bytes_max} bytes, found {length}");
    let mut bytes = vec![0; length];
    body.read_exact(&mut bytes).context("it is cut off")?;
    Ok(bytes)
}

/// All of a file but its trailer, with the trailer that it would have.
struct Body<R> {
    from: R,
    /// What was read; the last bytes, up to a trailer's, are held back.
    buffer: Vec<u8>,
    start: usize,
    hash: Sha256,
    given: u64,
}

impl<R: Read> Body<R> {
    /// R4; nothing is left but the trailer.
    fn check_trailer(self) -> Result<()> {
        let trailer = &self.buffer[self.start..];
        ensure!(trailer.len() == TRAILER_BYTES, "it is cut off");
        let expected = [&self.given.to_le_bytes()[..], &self.hash.finalize()].concat();
        ensure!(trailer == expected, "it is damaged: its length or SHA-256 is not the one at its end");
        Ok(())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = (self.buffer.len() - self.start).saturating_sub(TRAILER_BYTES);
            if ready > 0 {
                let given = &self.buffer[self.start..self.start + ready.min(out.len())];
                out[..given.len()].copy_from_slice(given);
                self.hash.update(given);
                self.start += given.len();
                self.given += given.len() as u64;
                return Ok(given.len());
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if Read::take(&mut self.from, READ_BYTES).read_to_end(&mut self.buffer)? == 0 {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::path::PathBuf;
    use windlass_apiserver::Pki;
    use windlass_stdx::World;
    use windlass_store::{Config, Expect, Op, SimulatedDisk, Store, Template};

    use super::*;

    /// A cluster of its own: a few objects, its keys and its id.
    pub struct Sample {
        pub manifest: Manifest,
        pub keys: KeyFiles,
        pub state: Vec<u8>,
        directory: PathBuf,
    }

    impl Drop for Sample {
        fn drop(&mut self) {
            if let Err(error) = std::fs::remove_dir_all(&self.directory) {
                eprintln!("{} was left behind: {error}", self.directory.display());
            }
        }
    }

    impl Sample {
        pub fn new(name: &str) -> Sample {
            let directory = std::env::temp_dir().join(format!("windlass-archive-{name}-{}", std::process::id()));
            Pki::open(&directory, &World::real()).expect("a new authority");
            let keys = KeyFiles::read(&directory).expect("all files");
            let object = |name: &str| {
                let (head, tail) =
                    (r#"{"metadata":{"namespace":"n","resourceVersion":""#, format!("\",\"name\":\"{name}\"}}}}"));
                let value = Template::with_revision_at(format!("{head}{tail}"), head.len() as u32);
                Op::put(format!("o/configmaps/n/{name}"), value, Expect::Any)
            };
            let (manifest, state) = exported([object("one"), object("two")]);
            Sample { manifest, keys, state, directory }
        }

        /// The file.
        pub fn file(&self) -> Vec<u8> {
            file(&self.manifest, &self.keys, &self.state)
        }
    }

    /// The export of a store with this in it.
    fn exported(writes: impl IntoIterator<Item = Op>) -> (Manifest, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
        runtime.block_on(async {
            let world = World::real();
            let store = Store::open(Config::new("/store"), SimulatedDisk::new(0).boot(), world.clone()).await;
            let store = store.expect("an empty disk");
            for write in writes {
                store.commit(vec![write]).await.expect("a write");
            }
            let (manifest, mut export) = windlass_apiserver::backup::begin(&store, &world).expect("it has begun");
            let mut state = Vec::new();
            while let Some(piece) = export.read().expect("memory") {
                state.extend_from_slice(&piece);
            }
            store.close().await;
            (manifest, state)
        })
    }

    pub fn file(manifest: &Manifest, keys: &KeyFiles, state: &[u8]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), manifest, keys).expect("memory");
        writer.write(state).expect("memory");
        let (file, size) = writer.end().expect("memory");
        assert_eq!(file.len() as u64, size);
        file
    }

    /// A file whose parts are these, with the length and the SHA-256 that it then has.
    pub fn of_parts(format: u32, manifest: &str, keys: &str, state: &[u8]) -> Vec<u8> {
        let mut writer = Writer { to: Vec::new(), hash: Sha256::new(), written: 0 };
        let length = |part: &str| (part.len() as u32).to_le_bytes();
        let (manifest_length, keys_length) = (length(manifest), length(keys));
        for part in [
            &MAGIC[..],
            &format.to_le_bytes(),
            &manifest_length,
            manifest.as_bytes(),
            &keys_length,
            keys.as_bytes(),
            state,
        ] {
            writer.write(part).expect("memory");
        }
        writer.end().expect("memory").0
    }

    fn read(file: &[u8]) -> Result<Archive> {
        Archive::read(file, 1 << 30, |_| Ok(()))
    }

    #[track_caller]
    fn refused(file: &[u8], why: &str) {
        let said = read(file).err().map(|error| format!("{error:#}")).expect("it is refused");
        assert!(said.contains(why), "expected {why:?}, found {said:?}");
    }

    #[test]
    fn a_file_is_read_back() {
        let sample = Sample::new("back");
        let archive = read(&sample.file()).expect("whole");
        assert!(archive.keys == sample.keys);
        assert_eq!(archive.manifest, sample.manifest);
        let keys: Vec<&str> = archive.state.entries().map(|entry| entry.key()).collect();
        assert_eq!(keys, ["o/configmaps/n/one", "o/configmaps/n/two"]);
        // However little a read gives.
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let count = self.0.len().min(out.len()).min(7);
                out[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        let file = sample.file();
        assert!(Archive::read(Slow(&file), 1 << 30, |_| Ok(())).is_ok());
    }

    #[test]
    fn r1_a_name_or_a_member_of_another_archive_has_no_place() {
        let sample = Sample::new("names");
        let manifest = serde_json::to_value(&sample.manifest).expect("a map");
        let keys = serde_json::to_value(&sample.keys).expect("a map");
        for name in ["../../etc/cron.d/x", "/etc/passwd", "ca.key/../../x"] {
            let mut more = keys.clone();
            more[name] = "x".into();
            refused(&of_parts(FORMAT, &manifest.to_string(), &more.to_string(), &sample.state), "unknown field");
        }
        let twice = keys.to_string().replacen('{', "{\"sa.key\":\"x\",", 1);
        refused(&of_parts(FORMAT, &manifest.to_string(), &twice, &sample.state), "duplicate field");
        let mut more = manifest.clone();
        more["directory"] = "/".into();
        refused(&of_parts(FORMAT, &more.to_string(), &keys.to_string(), &sample.state), "unknown field");
        let mut ugly = manifest;
        ugly["cluster"] = "a\nmember 2".into();
        refused(&of_parts(FORMAT, &ugly.to_string(), &keys.to_string(), &sample.state), "expected a plain word");
    }

    #[test]
    fn r2_another_format_and_schema_are_refused_and_say_who_made_them() {
        let sample = Sample::new("versions");
        let keys = serde_json::to_string(&sample.keys).expect("a map");
        let manifest = serde_json::to_string(&sample.manifest).expect("a map");
        for format in [0, FORMAT + 1, u32::MAX] {
            refused(&of_parts(format, &manifest, &keys, &sample.state), &format!("it has format {format}, and this"));
        }
        for schema in [SCHEMA - 1, SCHEMA + 1] {
            let other = Manifest { schema, windlass: "9.8.7".to_owned(), ..sample.manifest.clone() };
            let said = format!("stored in form {schema}, by windlass 9.8.7");
            refused(&file(&other, &sample.keys, &sample.state), &said);
        }
        for other in [&b"PK\x03\x04 a zip"[..], b"\x1f\x8b\x08 gzip", &[0; 1024], b"", b"WLSTSNP1"] {
            refused(other, "no backup");
        }
    }

    #[test]
    fn r3_what_it_says_of_its_size_is_bounded_and_kept() {
        let sample = Sample::new("bounds");
        let of = |manifest: &Manifest| file(manifest, &sample.keys, &sample.state);
        let good = &sample.manifest;
        for (bytes, entries) in [(1 << 40, 2), (good.bytes, 1 << 30), (u64::MAX, 2), (u64::MAX - 1024, u64::MAX)] {
            refused(&of(&Manifest { bytes, entries, ..good.clone() }), "not enough memory");
        }
        refused(&of(&Manifest { bytes: good.bytes - 1, ..good.clone() }), "there are more than");
        refused(&of(&Manifest { bytes: good.bytes + 1, ..good.clone() }), "does not hold what it says");
        refused(&of(&Manifest { entries: 3, ..good.clone() }), "does not hold what it says");
        refused(&of(&Manifest { revision: 7, ..good.clone() }), "does not hold what it says");
        refused(&of(&Manifest { cluster: "other".to_owned(), ..good.clone() }), "expected cluster");
        let manifest = serde_json::to_string(good).expect("a map");
        let large = " ".repeat(KEYS_BYTES_MAX + 1);
        refused(&of_parts(FORMAT, &manifest, &large, &sample.state), "its keys: expected at most");
        refused(&of_parts(FORMAT, &large, "{}", &sample.state), "its manifest: expected at most");
        let mut endless = sample.file()[..12].to_vec();
        endless.extend_from_slice(&u32::MAX.to_le_bytes());
        endless.extend_from_slice(&[0; 100]);
        refused(&endless, "its manifest: expected at most");
    }

    #[test]
    fn r4_a_flipped_byte_anywhere_a_cut_and_an_added_byte_are_refused() {
        let sample = Sample::new("whole");
        let file = sample.file();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(&flipped).is_err(), "byte {at}");
            assert!(read(&file[..at]).is_err(), "cut at {at}");
        }
        for more in [&b"\0"[..], b"trailing garbage", &file] {
            assert!(read(&[&file[..], more].concat()).is_err(), "{} bytes more", more.len());
        }
    }

    #[test]
    fn an_object_that_no_server_could_read_is_refused() {
        let sample = Sample::new("objects");
        let put = Op::put("o/configmaps/n/x", Template::plain("no JSON"), Expect::Any);
        let (manifest, state) = exported([put]);
        let file = file(&manifest, &sample.keys, &state);
        refused(&file, "it is no object");
    }
}
