//! `meshctl completions` and `meshctl man`: what is generated from the command line as it is.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Prints what makes a shell complete this command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes the manual pages of this command and of each below it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Man {
    /// The directory, such as /usr/local/share/man/man1, which is made if it is not there.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Prints the completions.
pub(crate) fn completions(options: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = crate::Options::command();
    clap_complete::generate(options.shell, &mut command, "meshctl", &mut script);
    match std::io::stdout().lock().write_all(&script) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes the pages: `meshctl.1`, `meshctl-status.1` and so on.
pub(crate) fn man(options: &Man) -> anyhow::Result<()> {
    let directory = &options.directory;
    let cannot_write = || format!("cannot write manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(cannot_write)?;
    clap_mangen::generate_to(crate::Options::command(), directory).with_context(cannot_write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_manual_page() {
        let directory = tempfile::TempDir::new().unwrap();
        let options = Man {
            directory: directory.path().join("man1"),
        };
        man(&options).unwrap();
        let command = crate::Options::command();
        for name in command.get_subcommands().map(clap::Command::get_name) {
            let page = options.directory.join(format!("meshctl-{name}.1"));
            let page = fs::read_to_string(&page).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(page.contains(".SH OPTIONS"), "{name}: {page}");
        }
        let page = fs::read_to_string(options.directory.join("meshctl.1")).unwrap();
        assert!(page.contains("meshctl\\-status(1)"), "{page}");
    }

    #[test]
    fn each_shell_is_told_each_command() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            let mut command = crate::Options::command();
            clap_complete::generate(*shell, &mut command, "meshctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in command.get_subcommands().map(clap::Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}
