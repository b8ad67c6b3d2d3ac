//! The person's editor, and the file it is given.
//!
//! Rules
//!   R1 which   KUBE_EDITOR, else EDITOR, else vi; with quotes in it, a shell reads it
//!   R2 own     the file is new and only its owner may read it: it may hold a Secret

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::cli::session::Session;

/// Bytes that an edited file may have.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A program and its arguments; the file comes last.
pub(super) struct Editor {
    words: Vec<String>,
    /// Whether the last word is a command line of a shell.
    by_shell: bool,
}

impl Editor {
    /// R1.
    pub(super) fn of_environment() -> Editor {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let editor = variable("KUBE_EDITOR").or_else(|| variable("EDITOR")).unwrap_or_else(|| "vi".to_owned());
        Editor::parse(&editor, &variable("SHELL").unwrap_or_else(|| "/bin/bash".to_owned()))
    }

    fn parse(editor: &str, shell: &str) -> Editor {
        if editor.contains(' ') && editor.contains(['"', '\'', '\\']) {
            return Editor { words: vec![shell.to_owned(), "-c".to_owned(), editor.to_owned()], by_shell: true };
        }
        Editor {
            words: editor.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            by_shell: false,
        }
    }

    /// R2.
    pub(super) fn file(&self, session: &Session, text: &str, ending: &str) -> Result<PathBuf> {
        let number = session.client.world().random_u64();
        let path = std::env::temp_dir().join(format!("windlass-edit-{number}.{ending}"));
        let context = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(context)?;
        file.write_all(text.as_bytes()).with_context(context)?;
        Ok(path)
    }

    /// Runs the editor until the person is done; gives what the file holds then.
    pub(super) fn edit(&self, path: &Path) -> Result<String> {
        let mut command = self.command(path)?;
        let said = self.words.join(" ");
        // ^C is the editor's alone: people leave vi's input mode by it. The editor has it as it was.
        let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
            .context("cannot leave interrupts to the editor")?;
        let status = command.status().map_err(|error| anyhow!("unable to launch the editor {said:?}: {error}"))?;
        if !status.success() {
            bail!("there was a problem with the editor {said:?}");
        }
        let context = || format!("cannot read {}", path.display());
        if fs::metadata(path).with_context(context)?.len() > FILE_BYTES_MAX {
            bail!("{}: expected at most {FILE_BYTES_MAX} bytes, found more", path.display());
        }
        fs::read_to_string(path).with_context(context)
    }

    fn command(&self, path: &Path) -> Result<Command> {
        let Some((program, rest)) = self.words.split_first() else { bail!("the editor has no name") };
        let mut command = Command::new(program);
        if self.by_shell {
            let (last, flags) = rest.split_last().context("a shell has a command line")?;
            // The file is the shell's first parameter, so that nobody has to quote its name.
            command.args(flags).arg(format!("{last} \"$1\"")).arg("editor").arg(path);
        } else {
            command.args(rest).arg(path);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::Editor;
    use std::path::Path;

    fn check(editor: &str, expected: &[&str]) {
        let command = Editor::parse(editor, "/bin/sh").command(Path::new("/f")).expect("a command");
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        assert_eq!(words, expected, "{editor}");
    }

    #[test]
    fn r1_words_are_split_and_quotes_are_the_shells() {
        check("vi", &["vi", "/f"]);
        check("code  --wait", &["code", "--wait", "/f"]);
        check("sed -i 's/a b/c/'", &["/bin/sh", "-c", "sed -i 's/a b/c/' \"$1\"", "editor", "/f"]);
    }
}
