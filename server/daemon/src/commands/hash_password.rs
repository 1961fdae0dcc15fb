//! `seedring hash-password`: a line for `api.users`, of a password that nobody sees.
//!
//! At a terminal it is asked for twice and not shown; from a pipe or a file its first line is taken.
//! It is never an argument: those are seen by everybody on the machine.

use crate::cli::Global;
use crate::failure::Failure;
use crate::progress::{print, print_json};
use anyhow::{Context, anyhow};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use std::io::{BufRead, IsTerminal, Read, Write};

/// The longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Arguments of `seedring hash-password`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring hash-password admin                     asks twice, prints admin:$argon2id$…
  pass show seedbox | seedring hash-password admin

The line goes into [api] users of the configuration; then systemctl reload seedring.")]
pub struct HashPasswordArgs {
    /// The user; without one the hash alone is printed
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
}

/// Runs the command.
pub fn run(global: &Global, args: &HashPasswordArgs) -> Result<(), Failure> {
    let password = match std::io::stdin().is_terminal() {
        true => asked_twice()?,
        false => first_line(std::io::stdin().lock())?,
    };
    let hash = control::api::hash_password(&password).map_err(anyhow::Error::from)?;
    let line = match &args.name {
        Some(name) => format!("{name}:{hash}"),
        None => hash,
    };
    match global.json {
        true => print_json(&serde_json::json!({ "user": line })),
        false => print(&format!("{line}\n")),
    }
    Ok(())
}

/// A name that `api.users` takes: a colon would end it.
fn parse_name(text: &str) -> Result<String, String> {
    let is_name = (1..=64).contains(&text.len())
        && !text.contains(':')
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    match is_name {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 bytes, no blank and no colon".to_owned()),
    }
}

/// What can be a password.
fn checked(password: String) -> Result<String, Failure> {
    let wrong = match password.len() {
        0 => "the password is empty",
        1..=PASSWORD_BYTES_MAX => return Ok(password),
        _ => "the password is longer than 1024 bytes",
    };
    Err(Failure::Usage(anyhow!("{wrong}; give another")))
}

fn first_line(input: impl Read) -> Result<String, Failure> {
    let mut line = String::new();
    // One byte more than is taken, and the end of the line, so that what is longer shows.
    let limited = input.take(PASSWORD_BYTES_MAX as u64 + 3);
    std::io::BufReader::new(limited)
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    checked(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn asked_twice() -> Result<String, Failure> {
    let password = checked(asked("Password: ")?)?;
    match asked("Again: ")? == password {
        true => Ok(password),
        false => Err(Failure::Usage(anyhow!("the two differ; nothing was made"))),
    }
}

/// Puts the terminal back as it was.
struct Raw;

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
        eprintln!();
    }
}

fn asked(prompt: &str) -> Result<String, Failure> {
    eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    enable_raw_mode().context("cannot turn off what the terminal shows")?;
    let _raw = Raw;
    let mut password = String::new();
    loop {
        let event = event::read().context("cannot read the terminal")?;
        let Event::Key(key) = event else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Ok(password),
            KeyCode::Char('c' | 'd') if control => {
                return Err(Failure::Failed(anyhow!("stopped; nothing was made")));
            }
            KeyCode::Char('u') if control => password.clear(),
            KeyCode::Char(c) if !control && password.len() <= PASSWORD_BYTES_MAX => {
                password.push(c);
            }
            KeyCode::Backspace => {
                password.pop();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_pipe_is_a_password_without_its_end() {
        let read = |text: &str| first_line(text.as_bytes()).ok();
        assert_eq!(read("secret\n"), Some("secret".into()));
        assert_eq!(read("secret\r\nmore\n"), Some("secret".into()));
        assert_eq!(read(" with blanks "), Some(" with blanks ".into()));
        assert_eq!(read(""), None);
        assert_eq!(read("\n"), None);
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        assert_eq!(read(&format!("{longest}\n")), Some(longest.clone()));
        assert_eq!(read(&format!("{longest}x\n")), None);
    }

    #[test]
    fn a_name_is_one_that_the_configuration_takes() {
        assert!(parse_name("admin").is_ok() && parse_name(&"x".repeat(64)).is_ok());
        for wrong in ["", "a:b", "a b", "a\n", &"x".repeat(65)] {
            assert!(parse_name(wrong).is_err(), "{wrong}");
        }
    }
}
