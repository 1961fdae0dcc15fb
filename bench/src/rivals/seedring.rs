//! Ours: any build, with any settings, as often as wanted beside each other.

use std::path::{Path, PathBuf};

use super::data::DataSet;
use super::{Place, Rival, version_line};
use crate::harness::children::Program;
use crate::harness::folder;

/// A build of this project with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seedring {
    name: String,
    binary: PathBuf,
    /// Configuration keys, such as `storage.send_path`, and their values.
    settings: Vec<(String, String)>,
}

impl Seedring {
    /// The build at `binary`, with its defaults.
    pub fn new(name: &str, binary: &Path) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            settings: Vec::new(),
        }
    }

    /// Parses `[NAME=]PATH[,KEY=VALUE...]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (name, binary) = first.split_once('=').unwrap_or(("seedring", first));
        if name.is_empty() || binary.is_empty() {
            return Err(format!("{first:?} is not [NAME=]PATH"));
        }
        let setting = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let is_key = |word: &str| {
                let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                !word.is_empty() && word.chars().all(good)
            };
            match key.split_once('.') {
                Some((section, rest)) if is_key(section) && is_key(rest) && part.contains('=') => {
                    Ok((key.to_owned(), value.to_owned()))
                }
                _ => Err(format!(
                    "{part:?} is not SECTION.KEY=VALUE, such as storage.send_path=splice"
                )),
            }
        };
        Ok(Self {
            name: name.to_owned(),
            binary: PathBuf::from(binary),
            settings: parts.map(setting).collect::<Result<_, _>>()?,
        })
    }

    /// The binary, which each server is started with from a directory of its own: absolute.
    pub fn resolve(&mut self) {
        if let Ok(path) = self.binary.canonicalize() {
            self.binary = path;
        }
    }
}

impl Rival for Seedring {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> String {
        let set: Vec<String> = self
            .settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        match set.is_empty() {
            true => "defaults; one shard per core".to_owned(),
            false => format!("{}; one shard per core", set.join(", ")),
        }
    }

    fn missing(&self) -> Option<String> {
        let there = self.binary.is_file();
        (!there).then(|| {
            format!(
                "{} is missing (cargo build --release -p seedring, or --seedring PATH)",
                self.binary.display()
            )
        })
    }

    fn version(&self) -> String {
        version_line(&Program::new(&self.binary).arg("--version"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        // The machine's configuration must not decide figures.
        let mut text = "[peers]\nconnections_per_address_max = 10000\n".to_owned();
        if let Some(beside) = place.beside {
            text += &of_two(place, beside)?;
        }
        let config = folder::write(place.work, "seedring.toml", text)?;
        let mut program = Program::new(&self.binary);
        for (key, value) in &self.settings {
            let name = format!("SEEDRING_{}", key.replace('.', "__").to_uppercase());
            program = program.env(name, value);
        }
        if place.beside.is_some() {
            let program = program.arg("serve").arg("--config").arg(config);
            return Ok(program.arg("--state-dir").arg(place.home).arg("--json"));
        }
        Ok(program
            .arg("seed")
            .arg("--config")
            .arg(config)
            .arg("--torrent")
            .arg(&place.data.torrent_file)
            .arg("--data-dir")
            .arg(&place.data.directory)
            .arg("--state-dir")
            .arg(place.home)
            .args(["--port", &place.port.to_string()])
            .args(["--shards", &place.cores.to_string()])
            .args(["--api", "127.0.0.1:0", "--no-tracker", "--json"]))
    }

    fn is_ours(&self) -> bool {
        true
    }
}

/// The rest of a configuration with two torrents; it begins in the section `[peers]`. `seed` takes
/// one torrent only, so this is for `serve`.
fn of_two(place: &Place<'_>, beside: &DataSet) -> anyhow::Result<String> {
    let mut text = format!(
        "port = {}\n[shards]\ncount = {}\n[api]\nlisten = \"127.0.0.1:0\"\n",
        place.port, place.cores
    );
    for data in [place.data, beside] {
        // A string of JSON is one of TOML, too.
        let quoted = |path: &Path| serde_json::to_string(path);
        let (torrent, directory) = (quoted(&data.torrent_file)?, quoted(&data.directory)?);
        text += &format!("[[torrent]]\ntorrent = {torrent}\ndata = {directory}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_parsed() {
        let plain = Seedring::parse("target/release/seedring").unwrap();
        assert_eq!(
            plain,
            Seedring::new("seedring", Path::new("target/release/seedring"))
        );
        let ring =
            Seedring::parse("ring=/bin/seedring,storage.send_path=ring,peers.bind_v6=").unwrap();
        assert_eq!(
            (ring.name(), ring.binary.as_path()),
            ("ring", Path::new("/bin/seedring"))
        );
        assert_eq!(
            ring.settings(),
            "storage.send_path = ring, peers.bind_v6 = ; one shard per core"
        );
        for wrong in [
            "",
            "=x",
            "x=",
            "x,send_path=ring",
            "x,a.b",
            "x,a.=1",
            "x,A.b=1",
        ] {
            assert!(Seedring::parse(wrong).is_err(), "{wrong}");
        }
    }
}
