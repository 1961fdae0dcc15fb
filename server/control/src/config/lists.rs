//! `[[watch]]` and `[[hook]]`: lists of tables whose keys are declared as those of sections are, so
//! that they have one reader, one place in the reference and no variables.
//!
//! Limits: [`WATCHES_MAX`], [`HOOKS_MAX`], those of the keys. Does not: look at folders or start
//! anything; what keys demand of each other is in `conflicts.rs`.

use super::setting::{Bounds, Input, Setting, quote};
use super::table::{WrongEntry, section};
use super::units::{ByteRate, Seconds};
use crate::hooks::{Argument, HookEvent};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Watch folders of one server.
pub(crate) const WATCHES_MAX: usize = 64;

/// Hooks of one server.
pub(crate) const HOOKS_MAX: usize = 64;

/// The bytes of a category or a label, as the API has them.
const NAME_BYTES_MAX: usize = 1024;

/// The bytes of an argument of a program.
const ARGUMENT_BYTES_MAX: usize = 4096;

/// The bytes of a URL.
const URL_BYTES_MAX: usize = 4096;

section! {
    /// Folders whose .torrent files, and links in .magnet and .url files, are added as they come,
    /// one [[watch]] each, by `serve`. Names that begin with a dot are left alone, and so is what
    /// is no ordinary file. docs/WATCHING.md says more.
    WatchEntry {
        /// The folder, an absolute path. It need not be there at the start; it is looked for until
        /// it is. Whoever can write there adds torrents, so data of torrents must not come into it.
        live path: Folder = Folder::default();
        /// Whether the folders below it are watched, too.
        live recursive: bool = false;
        /// Folder that the data come into, an absolute path; "" takes library.save_path.
        live save_path: Folder = Folder::default();
        /// The category that the torrents are in.
        live category: Name = Name::default();
        /// Labels that they get.
        live labels: Names = Names::default(), 0..=256;
        /// Whether they wait until they are resumed.
        live paused: bool = false;
        /// Whether their data are taken to be complete: they are hashed before they are first
        /// served, and not before.
        live seed_mode: bool = false;
        /// Whether pieces are wanted in their order.
        live sequential: bool = false;
        /// Limits of each of the torrents; "" leaves one to its label, its category or the server,
        /// 0 is none against theirs, too.
        live upload_rate: Option<ByteRate> = None, 0..=1_000_000_000_000;
        /// See upload_rate.
        live download_rate: Option<ByteRate> = None, 0..=1_000_000_000_000;
        /// Bytes sent for a thousand of a complete torrent's, after which library.at_limit is done
        /// with it: 2000 is a ratio of 2. "" is the server's, 0 none.
        live ratio_permille: Option<u32> = None, 0..=1_000_000_000;
        /// Seconds that a complete torrent is seeded, after which library.at_limit is done with it.
        /// "" is the server's, 0 none.
        live seeding_time_s: Option<Seconds> = None, 0..=1_000_000_000;
        /// What becomes of a file whose torrent is added: it is renamed to NAME.added ("rename"),
        /// deleted ("delete"), stays and is remembered ("keep"), or is moved to another folder (an
        /// absolute path).
        live after: After = After::Rename;
        /// Seconds for which a file that is no torrent must not have changed before it is renamed
        /// to NAME.invalid: until then somebody may be writing it.
        live settle_s: Seconds = Seconds(30), 1..=86_400;
    }
}

section! {
    /// Programs that are run and URLs that are posted to when something happens to a torrent, one
    /// [[hook]] each, by `serve`. docs/HOOKS.md says what they are told.
    HookEntry {
        /// What it is told: "added", "metadata" (of a magnet link, they are known), "completed"
        /// (all that is wanted of it is downloaded), "error", "offline" (its data are not there)
        /// and "removed".
        live on: Events = Events::default(), 1..=6;
        /// Only of torrents in one of these categories; [] is any.
        live categories: Names = Names::default(), 0..=256;
        /// Only of torrents with one of these labels; [] is any.
        live labels: Names = Names::default(), 0..=256;
        /// The program, an absolute path, and its arguments, in which {event}, {id}, {info_hash},
        /// {name}, {save_path}, {category}, {labels}, {bytes} and {error} are replaced. No shell
        /// reads it, and an argument that begins with a name of a stranger's does not begin with
        /// "-".
        live run: Arguments = Arguments::default(), 0..=64;
        /// In place of a program, where the event is posted to as JSON. It leaves past
        /// announce.proxy and announce.bind_*, and redirects are not followed.
        live url: WebhookUrl = WebhookUrl::default();
        /// File with a secret by which what is posted is signed (HMAC-SHA256, in the header
        /// X-Seedring-Signature).
        live secret_file: Option<PathBuf> = None;
        /// File with a token that is sent as "Authorization: Bearer TOKEN".
        live token_file: Option<PathBuf> = None;
        /// Seconds after which a program is ended with all that it has started, or an attempt to
        /// post is given up.
        live timeout_s: Seconds = Seconds(60), 1..=86_400;
        /// How many torrents it is told of at a time. Of one torrent it is told one event after
        /// another.
        live concurrency: u32 = 4, 1..=64;
    }
}

/// What becomes of a file whose torrent has been added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It gets another name in its folder.
    Rename,
    /// It is deleted.
    Delete,
    /// It stays.
    Keep,
    /// It is moved into this folder.
    Move(PathBuf),
}

impl Setting for After {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "rename" => Some(After::Rename),
            "delete" => Some(After::Delete),
            "keep" => Some(After::Keep),
            text => absolute(text).map(After::Move),
        }
    }
    fn render(&self) -> String {
        match self {
            After::Rename => quote("rename"),
            After::Delete => quote("delete"),
            After::Keep => quote("keep"),
            After::Move(folder) => quote(&folder.to_string_lossy()),
        }
    }
    fn allowed(_bounds: &Bounds) -> String {
        "\"rename\", \"delete\", \"keep\", or the absolute path of a folder".to_owned()
    }
}

/// An absolute path without `..`: what is relative to a daemon is nobody's business.
fn absolute(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && is_plain && !text.contains('\0')).then_some(path)
}

/// A folder by its absolute path; none if it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder(pub Option<PathBuf>);

impl Setting for Folder {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "" => Some(Folder(None)),
            text => absolute(text).map(|path| Folder(Some(path))),
        }
    }
    fn render(&self) -> String {
        let path = self.0.as_deref().unwrap_or(Path::new(""));
        quote(&path.to_string_lossy())
    }
    fn allowed(_bounds: &Bounds) -> String {
        "an absolute path without .., or \"\" for none".to_owned()
    }
}

/// Whether a text can be a category or a label, as the API has them.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A category; none if it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name(pub Option<String>);

impl Setting for Name {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "" => Some(Name(None)),
            text => is_name(text).then(|| Name(Some(text.to_owned()))),
        }
    }
    fn render(&self) -> String {
        quote(self.0.as_deref().unwrap_or_default())
    }
    fn allowed(_bounds: &Bounds) -> String {
        format!("at most {NAME_BYTES_MAX} bytes without control characters, or \"\" for none")
    }
}

/// Lists of texts, of which each has to be allowed.
macro_rules! list_settings {
    ($(
        $(#[doc = $doc:literal])*
        $List:ident($Item:ty), $is_allowed:expr, $read:expr, $shown:expr, $allowed:literal;
    )+) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone, Default, PartialEq, Eq)]
            pub struct $List(pub Vec<$Item>);

            impl Setting for $List {
                fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
                    let items = input.strings()?;
                    let items: Option<Vec<$Item>> = items.into_iter().map($read).collect();
                    let items = items?;
                    bounds.contains(&(items.len() as u64)).then_some($List(items))
                }
                fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
                    input.wrong_entry($is_allowed)
                }
                fn render(&self) -> String {
                    let items: Vec<String> = self.0.iter().map($shown).collect();
                    format!("[{}]", items.join(", "))
                }
                fn allowed(bounds: &Bounds) -> String {
                    format!($allowed, bounds.start(), bounds.end())
                }
            }
        )+
    };
}

fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

fn argument(text: &str) -> Option<Argument> {
    let fits = text.len() <= ARGUMENT_BYTES_MAX;
    fits.then(|| Argument::parse(text).ok()).flatten()
}

list_settings! {
    /// Categories or labels.
    Names(String), is_name, name, |item| quote(item),
        "a list of {} to {} names, each without control characters";
    /// What a hook is told.
    Events(HookEvent), |text| HookEvent::of(text).is_some(), HookEvent::of,
        |item| quote(item.name()),
        "a list of {} to {} of \"added\", \"metadata\", \"completed\", \"error\", \"offline\", \
         \"removed\"";
    /// A program and its arguments.
    Arguments(Argument), |text| argument(text).is_some(), argument, |item| quote(item.as_written()),
        "a list of {} to {} strings: the absolute path of a program, then arguments, in which \
         {{event}}, {{id}}, {{info_hash}}, {{name}}, {{save_path}}, {{category}}, {{labels}}, \
         {{bytes}} and {{error}} are replaced, and {{{{ and }}}} stand for braces";
}

/// Where events are posted to. Its path and its query may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebhookUrl(pub Option<reqwest::Url>);

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.as_ref().and_then(reqwest::Url::host_str);
        write!(f, "WebhookUrl({host:?})")
    }
}

impl Setting for WebhookUrl {
    const IS_SECRET: bool = true;

    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        let text = input.string()?;
        if text.is_empty() {
            return Some(WebhookUrl(None));
        }
        let url = reqwest::Url::parse(text).ok()?;
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_allowed = is_web && is_plain && text.len() <= URL_BYTES_MAX;
        is_allowed.then_some(WebhookUrl(Some(url)))
    }
    fn render(&self) -> String {
        quote(
            self.0
                .as_ref()
                .map(reqwest::Url::as_str)
                .unwrap_or_default(),
        )
    }
    fn allowed(_bounds: &Bounds) -> String {
        format!(
            "an http or https URL of at most {URL_BYTES_MAX} bytes without a name and a password \
             (token_file has a secret), or \"\" for none"
        )
    }
}

/// Keys that may be left to somebody else by `""`.
macro_rules! optional_settings {
    ($($Type:ty),+) => {
        $(impl Setting for Option<$Type> {
            fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
                match input.string() {
                    Some("") => Some(None),
                    _ => <$Type>::read(input, bounds).map(Some),
                }
            }
            fn render(&self) -> String {
                self.as_ref().map_or_else(|| quote(""), Setting::render)
            }
            fn allowed(bounds: &Bounds) -> String {
                format!("{}; or \"\"", <$Type>::allowed(bounds))
            }
        })+
    };
}
optional_settings!(ByteRate, u32, Seconds);
