//! Reads the file and the environment into a [`Config`], keeping where each key came from.

use super::error::{ConfigError, Place, Problem, escape};
use super::setting::{Input, Setting};
use super::table::Refused;
use super::{Api, Config, Environment, SeedEntry, TorrentEntry, conflicts, kernel};
use crate::announce::{Authority, check_authority};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

mod lists;

/// The largest configuration file: room for 100,000 `[[torrent]]` entries.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The prefix of variables that override a key; the section and the key are parted by `__`.
///
/// Names without `__` are not ours: Kubernetes gives every container variables such as
/// `SEEDRING_PORT` when a service is called `seedring`.
const VARIABLE_PREFIX: &str = "SEEDRING_";

pub(super) fn load(
    explicit: Option<&Path>,
    environment: &Environment,
) -> Result<Config, ConfigError> {
    let file = find(explicit, environment)?;
    let mut loader = Loader::default();
    if let Some((path, text)) = &file {
        let source = Source { path, text };
        loader.config.file = Some(path.clone());
        match DeTable::parse(text) {
            Ok(table) => loader.read_root(&source, table.get_ref()),
            Err(error) => {
                let place = source.place(error.span().unwrap_or(0..0));
                let message = error.message().trim().replace('\n', "; ");
                loader.problem(place, "", format!("not TOML: {}", escape(&message, 400)));
            }
        }
    }
    loader.read_environment(environment);
    loader.check_relations();
    loader.check_lists(environment);
    loader.finish()
}

/// The file to read with its text: the explicit one, else the first that exists.
fn find(
    explicit: Option<&Path>,
    environment: &Environment,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    if let Some(path) = explicit {
        let text = read(path).map_err(|message| ConfigError::file(path.to_owned(), message))?;
        return Ok(Some((path.to_owned(), text)));
    }
    for path in environment.config_files() {
        // A file that exists but cannot be read is an error, not a reason to use another.
        match std::fs::symlink_metadata(&path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            _ => {
                let text =
                    read(&path).map_err(|message| ConfigError::file(path.clone(), message))?;
                return Ok(Some((path, text)));
            }
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("cannot read the configuration: {error}");
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if metadata.is_dir() {
        return Err("cannot read the configuration: it is a folder; name a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "the configuration is larger than {FILE_BYTES_MAX} bytes"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("line {line}: not UTF-8 at byte {valid}; save the file as UTF-8")
    })
}

/// A file that is being read.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    /// The position of a range of bytes.
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// What the user wrote there, for a message.
    fn excerpt(&self, span: Range<usize>) -> String {
        escape(self.text.get(span).unwrap_or_default(), 60)
    }

    /// A path of the file: a relative one starts at the file's folder.
    fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

#[derive(Default)]
struct Loader {
    config: Config,
    problems: Vec<Problem>,
    /// Where each key that is set came from.
    places: BTreeMap<String, Place>,
}

impl Loader {
    fn problem(&mut self, place: Place, key: impl Into<String>, message: String) {
        self.problems.push(Problem {
            place,
            key: key.into(),
            message,
        });
    }

    fn read_root(&mut self, source: &Source<'_>, root: &DeTable<'_>) {
        for (name, value) in root {
            let place = source.place(name.span());
            let section = name.get_ref().as_ref();
            match (section, value.get_ref()) {
                ("torrent", DeValue::Array(items)) => {
                    for item in items.iter() {
                        self.read_torrent(source, item.span(), item.get_ref());
                    }
                }
                ("seed", DeValue::Array(items)) => {
                    for item in items.iter() {
                        self.read_seed(source, item.span(), item.get_ref());
                    }
                }
                ("watch", DeValue::Array(items)) => {
                    for item in items.iter() {
                        self.read_watch(source, item.span(), item.get_ref());
                    }
                }
                ("hook", DeValue::Array(items)) => {
                    for item in items.iter() {
                        self.read_hook(source, item.span(), item.get_ref());
                    }
                }
                ("torrent" | "seed" | "watch" | "hook", _) => {
                    let message = format!(
                        "is a list: write [[{section}]] in double brackets before each entry"
                    );
                    self.problem(place, section, message);
                }
                (_, DeValue::Table(keys)) if self.config.section(section).is_some() => {
                    self.read_section(source, section, keys);
                }
                _ if self.config.section(section).is_some() => {
                    let message = format!("is a section: write [{section}] and its keys below it");
                    self.problem(place, section, message);
                }
                _ => {
                    let lists = ["torrent", "seed", "watch", "hook"];
                    let known: Vec<&str> = Config::SECTIONS.iter().copied().chain(lists).collect();
                    let message = unknown("section", section, &known);
                    self.problem(place, escape(section, 60), message);
                }
            }
        }
    }

    fn read_section(&mut self, source: &Source<'_>, section: &str, keys: &DeTable<'_>) {
        for (name, value) in keys {
            let key = name.get_ref().as_ref();
            let place = source.place(value.span());
            match self.set(section, key, Input::Toml(value.get_ref()), place.clone()) {
                Ok(()) => {}
                Err(Refused::Unknown) => {
                    let place = source.place(name.span());
                    self.unknown_key(place, section, key);
                }
                Err(Refused::Value(wrong)) => {
                    let message = wrong.message(&source.excerpt(value.span()));
                    self.problem(place, format!("{section}.{key}"), message);
                }
            }
        }
        self.resolve_paths(source, section);
    }

    /// Lets the relative paths that this section says begin at the file's folder.
    fn resolve_paths(&mut self, source: &Source<'_>, section: &str) {
        let Config {
            state,
            api,
            peers,
            announce,
            library,
            ..
        } = &mut self.config;
        let single = [
            ("state.dir", &mut state.dir),
            ("api.tls_cert", &mut api.tls_cert),
            ("api.tls_key", &mut api.tls_key),
        ];
        let lists = [
            ("peers.ip_filter", &mut peers.ip_filter),
            ("announce.ca_files", &mut announce.ca_files),
            ("library.roots", &mut library.roots),
        ];
        let single = single
            .into_iter()
            .map(|(key, path)| (key, path.as_mut_slice()));
        let lists = lists
            .into_iter()
            .map(|(key, paths)| (key, paths.as_mut_slice()));
        for (key, paths) in single.chain(lists) {
            let is_of_this = key.split('.').next() == Some(section);
            if is_of_this && let Some(Place::Line { .. }) = self.places.get(key) {
                for path in paths {
                    *path = source.resolve(path);
                }
            }
        }
    }

    fn set(
        &mut self,
        section: &str,
        key: &str,
        input: Input<'_>,
        place: Place,
    ) -> Result<(), Refused> {
        let keys = self.config.section_mut(section).ok_or(Refused::Unknown)?;
        keys.set(key, input)?;
        self.places.insert(format!("{section}.{key}"), place);
        Ok(())
    }

    fn unknown_key(&mut self, place: Place, section: &str, key: &str) {
        let keys = self
            .config
            .section(section)
            .map(super::Section::keys)
            .unwrap_or_default();
        let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
        let message = unknown("key", key, &known);
        self.problem(place, format!("{section}.{}", escape(key, 60)), message);
    }

    /// Reads the paths of one `[[list]]` entry; what is missing or wrong is reported.
    fn read_paths<const N: usize>(
        &mut self,
        source: &Source<'_>,
        list: &str,
        entry: (Range<usize>, &DeValue<'_>),
        names: [&str; N],
    ) -> Option<[(PathBuf, Place); N]> {
        let (span, value) = entry;
        let Some(keys) = value.as_table() else {
            let message = format!("is a table: write [[{list}]] and its keys below it");
            self.problem(source.place(span), list, message);
            return None;
        };
        let mut found: [Option<(PathBuf, Place)>; N] = [const { None }; N];
        let problems_before = self.problems.len();
        for (name, value) in keys {
            let key = name.get_ref().as_ref();
            let Some(index) = names.iter().position(|known| *known == key) else {
                let message = unknown("key", key, &names);
                let key = format!("{list}.{}", escape(key, 60));
                self.problem(source.place(name.span()), key, message);
                continue;
            };
            let place = source.place(value.span());
            match Option::<PathBuf>::read(Input::Toml(value.get_ref()), &(0..=0)).flatten() {
                Some(path) => found[index] = Some((source.resolve(&path), place)),
                None => {
                    let message = format!(
                        "{} is not allowed; allowed: a path; a relative one starts at the folder \
                         of this file",
                        source.excerpt(value.span())
                    );
                    self.problem(place, format!("{list}.{key}"), message);
                }
            }
        }
        if self.problems.len() > problems_before {
            return None;
        }
        for (name, value) in names.iter().zip(&found) {
            if value.is_none() {
                let message = format!("is missing; every [[{list}]] needs it");
                self.problem(
                    source.place(span.clone()),
                    format!("{list}.{name}"),
                    message,
                );
                return None;
            }
        }
        let complete: Vec<(PathBuf, Place)> = found.into_iter().flatten().collect();
        complete.try_into().ok()
    }

    fn read_torrent(&mut self, source: &Source<'_>, span: Range<usize>, value: &DeValue<'_>) {
        let entry = self.read_paths(source, "torrent", (span, value), ["torrent", "data"]);
        let Some([(torrent, torrent_place), (data, data_place)]) = entry else {
            return;
        };
        let mut good = true;
        if let Err(message) = expect_path(&torrent, Kind::File) {
            self.problem(torrent_place, "torrent.torrent", message);
            good = false;
        }
        if let Err(message) = expect_path(&data, Kind::Folder) {
            self.problem(data_place, "torrent.data", message);
            good = false;
        }
        if good {
            self.config.torrents.push(TorrentEntry { torrent, data });
        }
    }

    fn read_seed(&mut self, source: &Source<'_>, span: Range<usize>, value: &DeValue<'_>) {
        let entry = self.read_paths(source, "seed", (span, value), ["path"]);
        let Some([(path, place)]) = entry else { return };
        match expect_path(&path, Kind::Either) {
            Ok(()) => self.config.seeds.push(SeedEntry { path }),
            Err(message) => self.problem(place, "seed.path", message),
        }
    }

    fn read_environment(&mut self, environment: &Environment) {
        for (variable, value) in &environment.variables {
            let Some((section, key)) = variable
                .strip_prefix(VARIABLE_PREFIX)
                .and_then(|name| name.split_once("__"))
            else {
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let place = Place::Variable(variable.clone());
            let Some(text) = value.to_str() else {
                self.problem(place, format!("{section}.{key}"), "is not UTF-8".to_owned());
                continue;
            };
            if self.config.section(&section).is_none() {
                let message = unknown("section", &section, Config::SECTIONS);
                self.problem(place, escape(&section, 60), message);
                continue;
            }
            match self.set(&section, &key, Input::Text(text), place.clone()) {
                Ok(()) => {}
                Err(Refused::Unknown) => self.unknown_key(place, &section, &key),
                Err(Refused::Value(wrong)) => {
                    let message = wrong.message(&format!("\"{}\"", escape(text, 60)));
                    self.problem(place, format!("{section}.{key}"), message);
                }
            }
        }
    }

    /// Checks what one key demands of another, and of the file system.
    fn check_relations(&mut self) {
        let Config {
            peers,
            shards,
            storage,
            state,
            ..
        } = &self.config;
        let mut problems: Vec<(&str, String)> = Vec::new();
        if peers.bind_v4.is_none() && peers.bind_v6.is_none() {
            let message = "bind_v4 and bind_v6 are both off, so no peer could connect; \
                           set one of them";
            problems.push(("peers.bind_v6", message.to_owned()));
        }
        // Each shard needs one buffer at least; how many there are by default is not known here.
        let buffers_min = u64::from(shards.count.max(1)) * storage.batch_bytes.bytes();
        if buffers_min > storage.buffer_bytes.bytes() {
            let message = "is less than one buffer of storage.batch_bytes for each of \
                           shards.count shards; raise it";
            problems.push(("storage.buffer_bytes", message.to_owned()));
        }
        if let Some(dir) = &state.dir
            && let Some(parent) = dir.parent()
            && !parent.as_os_str().is_empty()
            && let Err(message) = expect_path(parent, Kind::Folder)
        {
            problems.push(("state.dir", message));
        }
        for path in &peers.ip_filter {
            if let Err(message) = expect_path(path, Kind::File) {
                problems.push(("peers.ip_filter", message));
            }
        }
        for path in &self.config.announce.ca_files {
            if let Err(message) = expect_authority(path) {
                problems.push(("announce.ca_files", message));
            }
        }
        problems.extend(tls_problems(&self.config.api));
        problems.extend(conflicts::of_addresses(&self.config));
        problems.extend(conflicts::of_tracker(&self.config.tracker));
        problems.extend(conflicts::of_ports(&self.config));
        problems.extend(conflicts::of_datagrams(&self.config));
        let interface = peers.bind_interface.name();
        let foreign = |name: &&String| interface.is_some_and(|interface| interface != *name);
        if let Some(name) = self.config.lsd.interfaces.0.iter().find(foreign) {
            let message = format!(
                "\"{name}\" is not peers.bind_interface, so peers that are found there could not be \
                 met; leave it out"
            );
            problems.push(("lsd.interfaces", message));
        }
        problems.extend(conflicts::of_zones(&self.config.tracker.zones));
        problems.extend(conflicts::of_roots(&self.config));
        if let Err(message) = kernel::check_congestion_control(&self.config.peers) {
            problems.push(("peers.congestion_control", message));
        }
        for (key, message) in problems {
            let place = self.places.get(key).cloned().unwrap_or(Place::Default);
            self.problem(place, key, message);
        }
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let mut problems = self.problems;
        if problems.is_empty() {
            return Ok(self.config);
        }
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Err(ConfigError { problems })
    }
}

/// A certificate without its key, or one of them that is no file.
fn tls_problems(api: &Api) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let files = [
        ("api.tls_cert", &api.tls_cert, "api.tls_key", &api.tls_key),
        ("api.tls_key", &api.tls_key, "api.tls_cert", &api.tls_cert),
    ];
    for (key, path, other_key, other) in files {
        let Some(path) = path else {
            continue;
        };
        if other.is_none() {
            problems.push((key, format!("is of no use without {other_key}; set both")));
        }
        if let Err(message) = expect_path(path, Kind::File) {
            problems.push((key, message));
        }
    }
    problems
}

/// What a path must be.
#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
    Either,
}

fn expect_path(path: &Path, kind: Kind) -> Result<(), String> {
    let shown = escape(&path.to_string_lossy(), 400);
    let metadata = std::fs::metadata(path).map_err(|error| {
        format!("{shown}: {error}; it must exist and be readable before the server starts")
    })?;
    match kind {
        Kind::File if !metadata.is_file() => Err(format!("{shown} is not a file")),
        Kind::Folder if !metadata.is_dir() => Err(format!("{shown} is not a folder")),
        Kind::Either if !metadata.is_dir() && !metadata.is_file() => {
            Err(format!("{shown} is neither a file nor a folder"))
        }
        _ => Ok(()),
    }
}

/// A file of certificates that can be trusted.
fn expect_authority(path: &Path) -> Result<(), String> {
    expect_path(path, Kind::File)?;
    let shown = || escape(&path.to_string_lossy(), 400);
    let read = Authority::read(path).map_err(|error| format!("{}: {error}", shown()));
    check_authority(&read?).map_err(|error| escape(&error.to_string(), 600))
}

/// The message about a name that does not exist, with the nearest one that does.
fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let name = name.get(..name.len().min(64)).unwrap_or_default();
    let near = known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min();
    match near {
        Some((_, candidate)) => format!("there is no such {what}; did you mean {candidate}?"),
        None => format!("there is no such {what}; known are {}", known.join(", ")),
    }
}

/// How many single-character edits turn one name into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
