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

/// Prints the man page.
pub fn man() -> Result<(), Failure> {
    print(&man_page().context("rendering the man page in memory")?)
}

/// One page of all commands: the program's, then a part for each command.
fn man_page() -> std::io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        render_command(subcommand, &mut page)?;
    }
    Ok(page)
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn the_man_page_has_a_part_for_every_command() {
        let page = String::from_utf8(man_page().unwrap()).unwrap();
        for command in Cli::command().get_subcommands() {
            let heading = format!(".SH \"SEEDRING {}\"\n", command.get_name().to_uppercase());
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        }
        assert!(page.contains(".SH \"SEEDRING CONFIG CHECK\"\n"));
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "seedring", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains("verify") && script.contains("state-dir"),
                "{shell}"
            );
        }
    }
}
