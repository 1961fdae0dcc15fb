//! What is wrong with a configuration, and where.
//!
//! Every problem of a file is reported at once, each on one line that an editor can jump to. Text
//! of the file is escaped and truncated.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used. Nothing was started; a command exits with code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key, such as `peers.port`; empty when it is about the file as a whole.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Where a setting was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A position in a file, both numbers counted from 1, the column in characters.
    Line {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A file as a whole.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A default, with nothing set.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line, column } => {
                write!(
                    f,
                    "{}:{line}:{column}",
                    escape(&file.to_string_lossy(), 4096)
                )
            }
            Place::File(file) => write!(f, "{}", escape(&file.to_string_lossy(), 4096)),
            Place::Variable(name) => write!(f, "environment variable {}", escape(name, 200)),
            Place::Default => write!(f, "default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// An error about a file as a whole.
    pub(crate) fn file(file: PathBuf, message: String) -> Self {
        let problem = Problem {
            place: Place::File(file),
            key: String::new(),
            message,
        };
        Self {
            problems: vec![problem],
        }
    }
}

/// The text with control characters escaped, cut to this many characters.
pub(crate) fn escape(text: &str, characters_max: usize) -> String {
    let mut escaped = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == characters_max {
            escaped.push('…');
            break;
        }
        match character {
            // These stay as they are: nothing is quoted around the text that they could end.
            '"' | '\'' | '\\' => escaped.push(character),
            _ => escaped.extend(character.escape_debug()),
        }
    }
    escaped
}
