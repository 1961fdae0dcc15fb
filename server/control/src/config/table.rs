//! Sections and their keys as data, made from the same declaration as the structs.
//!
//! `section!` takes a section's keys with their doc comments, types, defaults and bounds, and makes
//! the struct, its default, its reader and its row of the reference file: one source of truth. Each
//! key says first whether a running server can take another value of it: `live` or `fixed`. One that
//! says neither does not compile.

use super::error::escape;
use super::setting::Input;

/// A key as the reference shows it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The doc comment, a line each.
    pub(crate) doc: &'static [&'static str],
    /// The default as TOML.
    pub(crate) default: String,
    /// What is allowed, in words.
    pub(crate) allowed: String,
    /// Whether a running server takes another value.
    pub(crate) reload: Reload,
}

/// What a running `serve` does with another value of a key when it reads the configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is taken.
    Live,
    /// It counts at the next start.
    Fixed,
}

/// A key that two configurations say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its section.
    pub section: &'static str,
    /// Its name in it.
    pub key: &'static str,
    /// Whether it is taken.
    pub reload: Reload,
}

/// Why a key was not set.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no such key.
    Unknown,
    /// The value is not allowed.
    Value(Wrong),
}

/// A value that is not allowed.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// What is allowed, in words.
    pub(crate) allowed: String,
    /// Of a list, the entry that is not allowed.
    pub(crate) entry: Option<WrongEntry>,
    /// It must not be shown.
    pub(crate) is_secret: bool,
}

impl Wrong {
    /// What is said of it to the user, who wrote `written`.
    pub(crate) fn message(&self, written: &str) -> String {
        let what = match &self.entry {
            _ if self.is_secret => {
                "the value (not shown: it may hold a password) is not allowed".to_owned()
            }
            None => format!("{written} is not allowed"),
            Some(WrongEntry { number, text }) => match text {
                Some(text) => format!("entry {number}, \"{}\", is not allowed", escape(text, 60)),
                None => format!("entry {number} is not a string"),
            },
        };
        format!("{what}; allowed: {}", self.allowed)
    }
}

/// An entry of a list that is not allowed.
#[derive(Debug)]
pub(crate) struct WrongEntry {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// What it says, if it is a string.
    pub(crate) text: Option<String>,
}

/// A section of the configuration.
pub(crate) trait Section {
    /// The doc comment, a line each.
    fn doc(&self) -> &'static [&'static str];
    /// The keys in the order declared, with the values of `self` as defaults.
    fn keys(&self) -> Vec<Key>;
    /// Sets one key.
    fn set(&mut self, key: &str, input: Input<'_>) -> Result<(), Refused>;
}

/// The bounds of a key that names none.
macro_rules! bounds {
    () => {
        0..=u64::MAX
    };
    ($bounds:expr) => {
        $bounds
    };
}

/// What a key says of itself before its name.
macro_rules! reload {
    (live) => {
        $crate::config::table::Reload::Live
    };
    (fixed) => {
        $crate::config::table::Reload::Fixed
    };
}

macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $reload:ident $key:ident: $type:ty = $default:expr $(, $bounds:expr)?;
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Section {
            $(
                $(#[doc = $doc])*
                #[doc = ""]
                #[doc = concat!(
                    "Default: `", stringify!($default), "`", $("; allowed: `", stringify!($bounds), "`",)? "."
                )]
                pub $key: $type,
            )*
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $key: $default ),* }
            }
        }

        impl $Section {
            /// Takes from `new` the keys that a running server can change, and notes all that are
            /// others there.
            #[allow(dead_code, reason = "entries of lists are taken as wholes")]
            pub(crate) fn renew(
                &mut self,
                new: &Self,
                section: &'static str,
                changes: &mut Vec<$crate::config::table::Change>,
            ) {
                use $crate::config::table::{Change, Reload, reload};
                $(
                    if self.$key != new.$key {
                        let (key, reload) = (stringify!($key), reload!($reload));
                        changes.push(Change { section, key, reload });
                        if reload == Reload::Live {
                            self.$key = new.$key.clone();
                        }
                    }
                )*
            }
        }

        impl $crate::config::table::Section for $Section {
            fn doc(&self) -> &'static [&'static str] {
                &[$($section_doc),*]
            }

            fn keys(&self) -> Vec<$crate::config::table::Key> {
                use $crate::config::{setting::Setting, table::{bounds, reload, Key}};
                vec![$(
                    Key {
                        name: stringify!($key),
                        doc: &[$($doc),*],
                        default: self.$key.render(),
                        allowed: <$type>::allowed(&(bounds!($($bounds)?))),
                        reload: reload!($reload),
                    },
                )*]
            }

            fn set(
                &mut self,
                key: &str,
                input: $crate::config::setting::Input<'_>,
            ) -> Result<(), $crate::config::table::Refused> {
                use $crate::config::{setting::Setting, table::{bounds, Refused, Wrong}};
                match key {
                    $(
                        stringify!($key) => {
                            let bounds = bounds!($($bounds)?);
                            let wrong = || Wrong {
                                allowed: <$type>::allowed(&bounds),
                                entry: <$type>::wrong_entry(input),
                                is_secret: <$type>::IS_SECRET,
                            };
                            self.$key = <$type>::read(input, &bounds)
                                .ok_or_else(|| Refused::Value(wrong()))?;
                            Ok(())
                        }
                    )*
                    _ => Err(Refused::Unknown),
                }
            }
        }
    };
}
pub(crate) use {bounds, reload, section};
