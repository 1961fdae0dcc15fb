//! `seedring completions` and `seedring man`: made from the command line's own definition.

use crate::cli::Cli;
use crate::failure::Failure;
use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::{ErrorKind, Write};

/// Arguments of `seedring completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring completions bash > /usr/share/bash-completion/completions/seedring
  seedring completions zsh > /usr/local/share/zsh/site-functions/_seedring
  seedring completions fish > ~/.config/fish/completions/seedring.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completion script of a shell.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "seedring", &mut script);
    print(&script)
}

/// Prints one man page of all commands: the program's, then a part for each command.
pub fn man() -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .context("rendering the man page in memory")?;
    for subcommand in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        render_command(subcommand, &mut page).context("rendering the man page in memory")?;
    }
    print(&page)
}

/// A command's part, and those of its own commands.
fn render_command(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    if command.get_name() == "help" {
        return Ok(());
    }
    // `build` has given a command of a command its full name, such as `seedring config check`.
    let name = command
        .get_bin_name()
        .unwrap_or(command.get_name())
        .to_owned();
    writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
    let man = clap_mangen::Man::new(command.clone());
    let mut part = Vec::new();
    man.render_description_section(&mut part)?;
    man.render_synopsis_section(&mut part)?;
    man.render_options_section(&mut part)?;
    man.render_extra_section(&mut part)?;
    // The parts are sections of pages of their own; here they are below the command's heading.
    for line in String::from_utf8_lossy(&part).lines() {
        match line.strip_prefix(".SH ") {
            Some(heading) => writeln!(page, ".SS {heading}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    for subcommand in command.get_subcommands() {
        render_command(subcommand, page)?;
    }
    Ok(())
}

/// Writes to stdout; a reader that has gone (`seedring man | head`) is no failure.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result.context("writing to stdout")?),
    }
}
