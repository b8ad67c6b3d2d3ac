//! `windlass completion`: what a shell needs to complete our words and flags, and in bash kinds, names and namespaces of
//! the cluster (`candidates`).

use std::io::Write;

use anyhow::Result;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::Cli;

/// `windlass completion`.
#[derive(Args)]
pub struct CompletionFlags {
    /// The shell
    #[arg(value_enum)]
    pub shell: KnownShell,
}

/// Shells that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KnownShell {
    /// source <(windlass completion bash)
    Bash,
    /// source <(windlass completion zsh)
    Zsh,
    /// windlass completion fish | source
    Fish,
}

/// In bash the cluster is asked first. `mapfile` takes lines as they are: names are never read by the shell.
const ASKING: &str = r#"
_windlass_asking() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 0 || -z ${COMPREPLY[0]} ]]; then
        COMPREPLY=()
        _windlass "$@"
    fi
}
complete -F _windlass_asking -o bashdefault -o default windlass
"#;

/// Does it.
pub fn run(flags: &CompletionFlags) -> Result<()> {
    Ok(std::io::stdout().write_all(&script(flags.shell))?)
}

fn script(shell: KnownShell) -> Vec<u8> {
    let shell = match shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windlass", &mut script);
    if shell == Shell::Bash {
        script.extend_from_slice(ASKING.as_bytes());
    }
    script
}

#[cfg(test)]
mod tests {
    use super::{KnownShell, script};

    #[test]
    fn every_shell_learns_the_verbs() {
        for shell in [KnownShell::Bash, KnownShell::Zsh, KnownShell::Fish] {
            let script = String::from_utf8(script(shell)).expect("scripts are text");
            assert!(script.contains("describe") && script.contains("rollout"), "{shell:?}");
        }
    }
}
