//! Arguments of programs: text in which `{name}` and others are replaced.
//!
//! What is put in their place comes from strangers. It stays within its argument, since no shell
//! reads it; and an argument that begins with it never begins with `-`, which the program would
//! take for an option: there `_` stands for it. The environment of the program has the texts as
//! they are.

use super::event::{Happened, identity};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// An argument as it was written, and what it is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Argument {
    written: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    Event,
    Id,
    InfoHash,
    Name,
    SavePath,
    Category,
    Labels,
    Bytes,
    Error,
}

const VALUES: [(&str, Value); 9] = [
    ("event", Value::Event),
    ("id", Value::Id),
    ("info_hash", Value::InfoHash),
    ("name", Value::Name),
    ("save_path", Value::SavePath),
    ("category", Value::Category),
    ("labels", Value::Labels),
    ("bytes", Value::Bytes),
    ("error", Value::Error),
];

/// It names something that there is not, or has a brace that is not closed, or a NUL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoArgument;

impl Argument {
    /// Reads an argument; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    ///
    /// [`NoArgument`].
    pub fn parse(written: &str) -> Result<Argument, NoArgument> {
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = written;
        while let Some(at) = rest.find(['{', '}', '\0']) {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else {
                let inner = rest.strip_prefix('{').ok_or(NoArgument)?;
                let (name, after) = inner.split_once('}').ok_or(NoArgument)?;
                let value = VALUES.iter().find(|(known, _)| *known == name);
                let (_, value) = value.ok_or(NoArgument)?;
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Value(*value));
                rest = after;
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        let written = written.to_owned();
        Ok(Argument { written, parts })
    }

    /// As it was written.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The path that it is, if nothing in it is to be replaced.
    pub fn as_path(&self) -> Option<PathBuf> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(PathBuf::from(text)),
            _ => None,
        }
    }

    /// What the program is given.
    pub(super) fn fill(&self, id: u64, happened: &Happened) -> OsString {
        let mut filled = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Part::Value(value) => {
                    let begins = filled.is_empty();
                    let value = value.of(id, happened);
                    filled.extend_from_slice(value.as_bytes());
                    if begins && let Some(first @ b'-') = filled.first_mut() {
                        *first = b'_';
                    }
                }
            }
        }
        OsString::from_vec(filled)
    }
}

impl Value {
    fn of(self, id: u64, happened: &Happened) -> OsString {
        let torrent = &happened.torrent;
        let text = match self {
            Value::Event => happened.event.name().to_owned(),
            Value::Id => identity(id),
            Value::InfoHash => torrent.info_hash.clone(),
            Value::Name => torrent.name.clone(),
            Value::SavePath => return without_nul(torrent.save_path.as_os_str()),
            Value::Category => torrent.category.clone().unwrap_or_default(),
            Value::Labels => torrent.labels.join(","),
            Value::Bytes => torrent.bytes.to_string(),
            Value::Error => happened.error.clone().unwrap_or_default(),
        };
        without_nul(OsStr::new(&text))
    }
}

/// No argument and no variable of a program can have a NUL in it: U+FFFD stands for one.
fn without_nul(text: &OsStr) -> OsString {
    let mut clean = Vec::new();
    for (number, part) in text.as_bytes().split(|byte| *byte == 0).enumerate() {
        if number > 0 {
            clean.extend_from_slice("\u{fffd}".as_bytes());
        }
        clean.extend_from_slice(part);
    }
    OsString::from_vec(clean)
}

/// The variables of a program, beside those that it has of ours.
pub(super) fn variables(id: u64, happened: &Happened) -> Vec<(String, OsString)> {
    let variable = |(name, value): (&str, Value)| {
        let name = format!("SEEDRING_{}", name.to_ascii_uppercase());
        (name, value.of(id, happened))
    };
    VALUES.map(variable).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::{HookEvent, Subject};

    fn happened(name: &str) -> Happened {
        Happened {
            event: HookEvent::Completed,
            at_s: 1,
            torrent: Subject {
                info_hash: "ab".repeat(20),
                name: name.to_owned(),
                save_path: "/srv/data".into(),
                category: None,
                labels: vec!["a".into(), "b c".into()],
                bytes: 12,
            },
            error: None,
        }
    }

    fn filled(written: &str, name: &str) -> String {
        let argument = Argument::parse(written).unwrap();
        assert_eq!(argument.as_written(), written);
        argument.fill(3, &happened(name)).into_string().unwrap()
    }

    #[test]
    fn what_is_in_braces_is_replaced_and_stays_in_its_argument() {
        assert_eq!(
            filled("{name}", "x; rm -rf $HOME `y`"),
            "x; rm -rf $HOME `y`"
        );
        assert_eq!(filled("a{{{name}}}b", "{event}"), "a{{event}}b");
        assert_eq!(filled("{event}/{labels}={bytes}", ""), "completed/a,b c=12");
        assert_eq!(filled("{category}{id}", ""), "0000000000000003");
        assert_eq!(filled("{name}", "a\0b"), "a\u{fffd}b");
        assert_eq!(filled("", ""), "");
    }

    #[test]
    fn no_name_becomes_an_option() {
        assert_eq!(filled("{name}", "-rf"), "_rf");
        assert_eq!(filled("{category}{name}", "--x"), "_-x");
        // What the user wrote is the user's.
        assert_eq!(filled("--name={name}", "-rf"), "--name=-rf");
        assert_eq!(filled("-{name}", "-x"), "--x");
        let variables = variables(3, &happened("-rf\0"));
        let name = variables.iter().find(|(name, _)| name == "SEEDRING_NAME");
        assert_eq!(name.unwrap().1, "-rf\u{fffd}");
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        for written in ["{", "}", "{nme}", "{name", "a}b", "{}", "{ name }", "a\0b"] {
            assert_eq!(Argument::parse(written), Err(NoArgument), "{written:?}");
        }
        let path = |written| Argument::parse(written).unwrap().as_path();
        assert_eq!(path("/bin/true"), Some("/bin/true".into()));
        assert_eq!(path("/bin/{name}"), None);
    }
}
