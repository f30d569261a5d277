//! The command `completions`: prints a script that lets a shell complete commands and options.

use std::io;

use clap::ValueEnum;

use super::streams;

pub(super) const EXAMPLES: &str = "\
The Debian package installs them. Without it:
  anomaly-counter completions bash >~/.local/share/bash-completion/completions/anomaly-counter
  anomaly-counter completions zsh >~/.zfunc/_anomaly-counter    # with ~/.zfunc in fpath
  anomaly-counter completions fish >~/.config/fish/completions/anomaly-counter.fish";

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the completions of a command line.
pub(super) fn print(shell: Shell, command: &mut clap::Command) -> io::Result<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, command, env!("CARGO_PKG_NAME"), &mut script);
    streams::write(&script)
}
