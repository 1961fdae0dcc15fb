//! `seedring export`: the .torrent file of a torrent that the server has.

use super::Remote;
use super::select::one;
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::progress::{print, print_json, shown};
use anyhow::{Context, anyhow};
use clap::Args;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The longest name that is made of a torrent's, in bytes: file systems take 255.
const NAME_BYTES_MAX: usize = 200;

/// Arguments of `seedring export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring export debian-12.iso                  into debian-12.iso.torrent
  seedring export 3fa9 -o /backup/one.torrent
  seedring export 3fa9 -o - | seedring show /dev/stdin

The file has the torrent's trackers, which may hold passkeys.")]
pub struct ExportArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// Where to; - for standard output [default: the torrent's name in this folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub fn run(global: &Global, args: &ExportArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let bytes = remote.bytes(&format!("/torrents/{}/metainfo", torrent.info_hash))?;
    if args.output.as_deref() == Some(Path::new("-")) {
        return crate::commands::completions::print(&bytes);
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => file_name(&torrent.name, &torrent.info_hash),
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if !args.force {
        options.create_new(true);
    }
    let written = options
        .open(&path)
        .and_then(|mut file| file.write_all(&bytes));
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = shown(&path);
            return Err(anyhow!("{there} exists already: --force replaces it").into());
        }
        written => written.with_context(|| format!("cannot write {}", shown(&path)))?,
    }
    match remote.json {
        true => print_json(&serde_json::json!({
            "event": "exported", "info_hash": torrent.info_hash, "file": path, "bytes": bytes.len()
        })),
        false => print(&format!("{}\n", shown(&path))),
    }
    Ok(())
}

/// A file in this folder that has the torrent's name, whatever is in that.
fn file_name(name: &str, hash: &str) -> PathBuf {
    let is_fit = |c: &char| !c.is_control() && *c != '/';
    let mut fit = String::new();
    for character in name.chars().filter(is_fit) {
        if fit.len() + character.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        fit.push(character);
    }
    let fit = match fit.trim_start_matches(['.', '-', ' ']) {
        "" => hash,
        fit => fit,
    };
    PathBuf::from(format!("{fit}.torrent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_name_stays_in_this_folder() {
        let of = |name: &str| file_name(name, "abc").to_str().unwrap().to_owned();
        assert_eq!(of("debian.iso"), "debian.iso.torrent");
        assert_eq!(of("../../etc/x\n"), "etcx.torrent");
        assert_eq!(of("-rf"), "rf.torrent");
        assert_eq!(of("..."), "abc.torrent");
        assert_eq!(
            of(&"ä".repeat(300)).len(),
            NAME_BYTES_MAX + ".torrent".len()
        );
    }
}
