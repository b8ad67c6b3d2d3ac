//! The directory of static pods: its files, as they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::{file_error, read_bounded};
use crate::machine::MachineError;

/// Files that are read; a directory with more is a mistake.
const FILES_MAX: usize = 256;
/// The longest file that is read: as long as an object may be.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Every regular file that is not hidden, by name. A directory that is not there has none.
pub fn read(directory: &Path) -> Result<BTreeMap<String, Bytes>, MachineError> {
    let mut out = BTreeMap::new();
    let listed = match std::fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(file_error("read", directory, &error)),
    };
    for entry in listed {
        let entry = entry.map_err(|error| file_error("read", directory, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if out.len() >= FILES_MAX {
            let error = io::Error::other(format!("expected at most {FILES_MAX} files, found more"));
            return Err(file_error("read", directory, &error));
        }
        // One that is gone by now says nothing.
        if let Some(text) = text(&entry.path()).map_err(|error| file_error("read", &entry.path(), &error))? {
            out.insert(name, text);
        }
    }
    Ok(out)
}

fn text(path: &Path) -> io::Result<Option<Bytes>> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(read_bounded(File::open(path)?, FILE_BYTES_MAX)?.into()))
}

#[cfg(test)]
mod tests {
    use super::{FILE_BYTES_MAX, read};

    #[test]
    fn regular_files_that_are_not_hidden_are_read_up_to_a_bound() {
        let directory = std::env::temp_dir().join(format!("windlass-manifests-{}", std::process::id()));
        assert!(read(&directory).expect("one that is not there is empty").is_empty());
        std::fs::create_dir_all(directory.join("sub")).expect("the temporary directory is writable");
        for (name, text) in [("a.yaml", "a"), (".hidden", "b")] {
            std::fs::write(directory.join(name), text).expect("the directory is ours");
        }
        let found = read(&directory).expect("readable");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a.yaml".to_owned(), "a".into())]);
        std::fs::write(directory.join("huge"), vec![b'x'; FILE_BYTES_MAX + 1]).expect("the directory is ours");
        assert!(read(&directory).is_err());
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
    }
}
