//! The file with what the owner of this machine says about registries: `DATA/registries.yaml`.
//!
//! Guarantees  read anew by every pull, so a change counts from the next one on; a file that cannot be read refuses pulls

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use windlass_api::codec::{Limits, yaml};
use windlass_runtime::image::Registries;

const FILE_BYTES_MAX: usize = 1 << 20;

/// Where the file is, beneath what survives a reboot.
pub fn path(data: &Path) -> PathBuf {
    data.join("registries.yaml")
}

/// Reads the file, YAML or JSON; one that is not there says nothing.
pub fn load(path: &Path) -> Result<Registries, String> {
    let read = || -> Result<Registries, String> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Registries::default()),
            other => other.map_err(|error| error.to_string())?,
        };
        let text = crate::kernel::read_bounded(file, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
        let value = yaml::decode(&text, Limits::default()).map_err(|error| error.to_string())?.value;
        Registries::read(value)
    };
    read().map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::load;

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_a_bad_one_is_refused_with_its_name() {
        let path = std::env::temp_dir().join(format!("windlass-registries-{}.yaml", std::process::id()));
        load(&path).expect("nothing");
        std::fs::write(&path, "registries:\n- prefix: r.example\n  mirrors: [m.example]\n").expect("written");
        load(&path).expect("a good one");
        std::fs::write(&path, "registries:\n- prefix: r.example\n  mirror: m.example\n").expect("written");
        let error = load(&path).expect_err("a bad one");
        assert!(
            error.contains("windlass-registries") && error.contains("registries[0]: unknown field `mirror`"),
            "{error}"
        );
        std::fs::remove_file(&path).expect("our own file");
    }
}
