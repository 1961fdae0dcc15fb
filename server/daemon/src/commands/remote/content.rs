//! `seedring files`, `rename`: the files of a torrent and what things are called.

use super::add::USUAL;
use super::select::one;
use super::table::{Column, table};
use super::text::{bytes, name, percent};
use super::{Remote, terminal_columns};
use crate::cli::Global;
use crate::client::ServerArgs;
use crate::failure::Failure;
use crate::getting::Choice;
use crate::progress::{counted, print, print_json};
use anyhow::anyhow;
use clap::Args;
use control::api::types::{
    EditFiles, EditTorrent, FileList, FilePriority, FileStatus, RenameFile, RenamePath,
};
use reqwest::Method;

/// Arguments of `seedring files`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring files debian-12.iso
  seedring files 3fa9 --priority '*.nfo=no' --priority 0,2-4=high
  seedring files 3fa9 --json | jq -r .path

A priority is no (or 0), low, usual, high, first or a number up to 7; of two that name a file, \
the last counts. --json prints a line for each file.")]
pub struct FilesArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// How much files are wanted: numbers such as 0,2-4 or a pattern such as '*.iso', a =, and the
    /// priority (repeatable)
    #[arg(long, value_name = "FILES=PRIORITY", value_parser = parse_wish)]
    priority: Vec<Wish>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Arguments of `seedring rename`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring rename 3fa9 'Debian 12'                    the name that is shown; files keep theirs
  seedring rename 3fa9 --file 2 videos/second.mkv     the third file, below the save path
  seedring rename 3fa9 --path Film.2024 'Film (2024)' a folder of it, or a file by its path

Files are served meanwhile. Nothing that is there already is written over.")]
pub struct RenameArgs {
    /// The torrent: its info-hash, the beginning of it, or its name
    #[arg(value_name = "TORRENT")]
    torrent: String,
    /// The number of a file, as `seedring files` shows it: the name is for it
    #[arg(long, value_name = "N")]
    file: Option<u32>,
    /// The path of a file, or of a folder with all in it, below the save path: the name is for it
    #[arg(long, value_name = "OLD", conflicts_with = "file")]
    path: Option<String>,
    /// The name; of a file or folder its path below the save path
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Files, and how much they are wanted.
#[derive(Clone, Debug)]
struct Wish {
    choice: Choice,
    text: String,
    priority: u8,
}

/// Words for priorities.
const WORDS: [(&str, u8); 5] = [
    ("no", 0),
    ("low", 1),
    ("usual", USUAL),
    ("high", 6),
    ("first", 7),
];

fn parse_wish(text: &str) -> Result<Wish, String> {
    let (files, priority) = text
        .rsplit_once('=')
        .ok_or("it is not FILES=PRIORITY, such as '*.nfo=no'")?;
    let number = || priority.parse().ok().filter(|priority| *priority <= 7);
    let word = WORDS.iter().find(|(word, _)| *word == priority);
    let priority = word.map(|(_, priority)| *priority).or_else(number);
    Ok(Wish {
        choice: files.parse()?,
        text: files.to_owned(),
        priority: priority.ok_or("a priority is no, low, usual, high, first, or 0 to 7")?,
    })
}

/// What is to change so that these wishes hold.
fn wished(wishes: &[Wish], files: &[FileStatus]) -> Result<Vec<FilePriority>, String> {
    let mut changes = std::collections::BTreeMap::new();
    for wish in wishes {
        let mut takes_any = false;
        for file in files {
            let path: Vec<&str> = file.path.split('/').collect();
            if wish.choice.takes_path(file.index, &path, path.len() > 1) {
                changes.insert(file.index, wish.priority);
                takes_any = true;
            }
        }
        if !takes_any {
            return Err(format!("{:?} takes none of the torrent's files", wish.text));
        }
    }
    let change = |(index, priority)| FilePriority { index, priority };
    Ok(changes.into_iter().map(change).collect())
}

/// The word for a priority, or its number.
pub fn priority_word(priority: u8) -> String {
    let word = WORDS.iter().find(|(_, number)| *number == priority);
    word.map_or_else(|| priority.to_string(), |(word, _)| (*word).to_owned())
}

/// Runs `files`.
pub fn files(global: &Global, args: &FilesArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let path = format!("/torrents/{}/files", torrent.info_hash);
    let list: FileList = remote.get(&path)?;
    if args.priority.is_empty() {
        if remote.json {
            list.files.iter().for_each(print_json);
        } else {
            print(&file_table(&list.files, terminal_columns()));
        }
        return Ok(());
    }
    let files = wished(&args.priority, &list.files);
    let files = files.map_err(|text| Failure::Failed(anyhow!(text)))?;
    let changed = files.len();
    remote.send(Method::PATCH, &path, &EditFiles { files })?;
    match remote.json {
        true => print_json(&serde_json::json!({ "event": "changed", "files": changed })),
        false => print(&format!("changed {}\n", counted(changed as u64, "file"))),
    }
    Ok(())
}

/// The files as a table.
pub fn file_table(files: &[FileStatus], room: Option<usize>) -> String {
    let row = |file: &FileStatus| {
        vec![
            file.index.to_string(),
            name(&file.path),
            bytes(file.total_bytes),
            percent(file.verified_bytes, file.total_bytes),
            priority_word(file.priority),
        ]
    };
    let columns = [
        Column::figure("#", 0),
        Column::text("path", 0),
        Column::figure("size", 2),
        Column::figure("done", 1),
        Column::word("wanted", 3),
    ];
    let rows: Vec<Vec<String>> = files.iter().map(row).collect();
    table(&columns, &rows, room)
}

/// Runs `rename`.
pub fn rename(global: &Global, args: &RenameArgs) -> Result<(), Failure> {
    let remote = Remote::new(global, &args.server)?;
    let torrent = one(&remote, &args.torrent)?;
    let path = format!("/torrents/{}", torrent.info_hash);
    match (args.file, &args.path) {
        (None, Some(from)) => {
            let path = format!("{path}/rename");
            let (from, to) = (from.clone(), args.name.clone());
            remote.send(Method::POST, &path, &RenamePath { from, to })?;
        }
        (Some(index), _) => {
            let path = format!("{path}/files/{index}/rename");
            let request = RenameFile {
                path: args.name.clone(),
            };
            remote.send(Method::POST, &path, &request)?;
        }
        (None, None) => {
            let request = EditTorrent {
                name: Some(args.name.clone()),
                ..EditTorrent::default()
            };
            remote.send(Method::PATCH, &path, &request)?;
        }
    }
    match remote.json {
        true => print_json(&serde_json::json!({
            "event": "renamed", "info_hash": torrent.info_hash, "file": args.file,
            "path": args.path, "name": args.name
        })),
        false => print(&format!("renamed to {}\n", name(&args.name))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<FileStatus> {
        let file = |(index, path): (u32, &&str)| FileStatus {
            index,
            path: (*path).to_owned(),
            total_bytes: 2048,
            verified_bytes: 1024,
            priority: USUAL,
        };
        let paths = ["t/a.iso", "t/sub/b.nfo", "t/sub/c.iso"];
        (0..).zip(&paths).map(file).collect()
    }

    #[test]
    fn wishes_name_files_and_the_last_counts() {
        let wish = |text: &str| parse_wish(text).unwrap();
        let changes = wished(
            &[wish("*.iso=high"), wish("0=no"), wish("sub/b*=7")],
            &files(),
        );
        let changes: Vec<(u32, u8)> = changes
            .unwrap()
            .iter()
            .map(|change| (change.index, change.priority))
            .collect();
        assert_eq!(changes, [(0, 0), (1, 7), (2, 6)]);
        assert!(wished(&[wish("*.txt=no")], &files()).is_err());
        for text in ["*.iso", "*.iso=8", "=no", "*.iso=much"] {
            assert!(parse_wish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn files_are_shown_with_what_is_wanted() {
        assert_eq!(
            file_table(&files()[..2], Some(40)),
            "#  path             size   done  wanted\n\
             0  t/a.iso      2.00 KiB  50.0%  usual\n\
             1  t/sub/b.nfo  2.00 KiB  50.0%  usual\n"
        );
    }
}
