//! Which files of a torrent are wanted: by their numbers, or by patterns for their paths.
//!
//! A number is a file's place in the torrent, from 0, as in magnet links (BEP 53) and in `seedring
//! show --json`. A pattern has `*` for any run of characters and `?` for one, neither of them `/`.
//! One with a `/` must fit a file's path below the torrent's folder, or that of a folder above the
//! file; one without may fit any part of it. The torrent's folder may stand before the path, as it
//! does in what `seedring show` prints.

use engine::picker::Priority;
use proto::metainfo::{File, Metainfo};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// One wish of the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The files of these numbers.
    Numbers(Vec<RangeInclusive<u32>>),
    /// The files whose path fits.
    Pattern(String),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Err(
                "it is empty; give numbers such as 0,2-4 or a pattern such as *.iso".into(),
            );
        }
        let of_numbers = |byte: u8| byte.is_ascii_digit() || matches!(byte, b',' | b'-');
        if !text.bytes().all(of_numbers) {
            return Ok(Choice::Pattern(text.to_owned()));
        }
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some(first..=last)
        };
        let ranges = text.split(',').filter(|item| !item.is_empty()).map(range);
        let ranges: Option<Vec<_>> = ranges.collect();
        ranges
            .map(Choice::Numbers)
            .ok_or_else(|| "its numbers are no list such as 0,2-4".to_owned())
    }
}

impl Choice {
    fn takes(&self, index: u32, file: &File, is_multi_file: bool) -> bool {
        self.takes_path(index, &file.path, is_multi_file)
    }

    /// Whether it takes the file of this number and path, which begins with the torrent's folder if
    /// it has one.
    pub fn takes_path<S>(&self, index: u32, path: &[S], is_multi_file: bool) -> bool
    where
        S: AsRef<str> + std::borrow::Borrow<str>,
    {
        match self {
            Choice::Numbers(ranges) => ranges.iter().any(|range| range.contains(&index)),
            Choice::Pattern(pattern) => {
                let below = if is_multi_file { 1 } else { 0 };
                let folder = path.first().filter(|_| is_multi_file);
                let path = path.get(below..).unwrap_or_default();
                if pattern.contains('/') {
                    let below = folder.and_then(|folder| {
                        pattern.strip_prefix(folder.as_ref())?.strip_prefix('/')
                    });
                    let starts = |pattern: &str| {
                        (1..=path.len()).any(|parts| fits(pattern, &path[..parts].join("/")))
                    };
                    starts(pattern) || below.is_some_and(starts)
                } else {
                    path.iter().any(|part| fits(pattern, part.as_ref()))
                }
            }
        }
    }
}

/// How much each file is wanted when these are chosen; empty for all.
///
/// # Errors
///
/// A choice that takes no file.
pub fn priorities(metainfo: &Metainfo, choices: &[Choice]) -> Result<Vec<Priority>, String> {
    if choices.is_empty() {
        return Ok(Vec::new());
    }
    let mut priorities = vec![Priority::SKIP; metainfo.files.len()];
    for choice in choices {
        let mut takes_any = false;
        for ((index, file), priority) in (0..).zip(&metainfo.files).zip(&mut priorities) {
            if !file.pad && choice.takes(index, file, metainfo.is_multi_file) {
                *priority = Priority::NORMAL;
                takes_any = true;
            }
        }
        if !takes_any {
            return Err(match choice {
                Choice::Numbers(ranges) => format!(
                    "{} takes no file: the torrent's have the numbers {}; `seedring show` lists them",
                    shown(ranges),
                    numbers(metainfo)
                ),
                Choice::Pattern(pattern) => format!(
                    "{pattern:?} takes none of the torrent's files; `seedring show` lists them"
                ),
            });
        }
    }
    let all_taken = |(file, priority): (&File, &Priority)| file.pad || *priority != Priority::SKIP;
    if metainfo.files.iter().zip(&priorities).all(all_taken) {
        return Ok(Vec::new());
    }
    Ok(priorities)
}

/// How many files are wanted, and how many there are; padding is none.
pub fn counts(metainfo: &Metainfo, priorities: &[Priority]) -> (u64, u64) {
    let is_wanted = |index: usize| priorities.get(index) != Some(&Priority::SKIP);
    let files = metainfo.files.iter().enumerate();
    files
        .filter(|(_, file)| !file.pad)
        .fold((0, 0), |(wanted, all), (index, _)| {
            (wanted + u64::from(is_wanted(index)), all + 1)
        })
}

/// Ranges as the user writes them.
fn shown(ranges: &[RangeInclusive<u32>]) -> String {
    let range = |range: &RangeInclusive<u32>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// The numbers that the torrent's files have, from the first to the last; padding has none that can
/// be chosen.
fn numbers(metainfo: &Metainfo) -> String {
    let is_file = |file: &File| !file.pad;
    let first = metainfo.files.iter().position(is_file).unwrap_or(0);
    let last = metainfo.files.iter().rposition(is_file).unwrap_or(0);
    match first == last {
        true => format!("{first}"),
        false => format!("{first} to {last}"),
    }
}

/// Whether `text` fits `pattern`. Time: at most their lengths multiplied.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star is, and up to where of the text it has been taken to reach.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some('?') if text[from] != '/' => (at, from) = (at + 1, from + 1),
            Some(&same) if same == text[from] => (at, from) = (at + 1, from + 1),
            _ => match star {
                Some((place, reach)) if text[reach] != '/' => {
                    star = Some((place, reach + 1));
                    (at, from) = (place + 1, reach + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::metainfo::{Builder, BuilderFile};

    /// A torrent `t` of these files of a byte each.
    fn torrent(files: &[&str]) -> Metainfo {
        let file = |path: &&str| BuilderFile {
            path: path
                .split('/')
                .map(|part| part.as_bytes().to_vec())
                .collect(),
            length: 1,
            ..BuilderFile::default()
        };
        let builder = Builder {
            name: b"t".to_vec(),
            piece_length: 16384,
            pieces: vec![0; 20],
            files: files.iter().map(file).collect(),
            ..Builder::default()
        };
        Metainfo::parse(&builder.encode()).unwrap()
    }

    /// The files that these choices take.
    fn taken(files: &[&str], choices: &[&str]) -> Vec<usize> {
        let choices: Vec<Choice> = choices.iter().map(|text| text.parse().unwrap()).collect();
        let priorities = priorities(&torrent(files), &choices).unwrap();
        let taken = |(index, &priority)| (priority == Priority::NORMAL).then_some(index);
        priorities.iter().enumerate().filter_map(taken).collect()
    }

    const FILES: [&str; 5] = ["a.iso", "b/c.iso", "b/d/e.txt", "f/b.txt", "2"];

    #[test]
    fn numbers_and_patterns_take_what_they_say() {
        assert_eq!(taken(&FILES, &["0,2-3"]), [0, 2, 3]);
        assert_eq!(taken(&FILES, &["*.iso"]), [0, 1], "at any depth");
        assert_eq!(taken(&FILES, &["b"]), [1, 2], "a folder has all below it");
        assert_eq!(taken(&FILES, &["b/"]), [1, 2]);
        assert_eq!(taken(&FILES, &["b/*.iso"]), [1]);
        assert_eq!(taken(&FILES, &["b/d"]), [2]);
        assert_eq!(taken(&FILES, &["t/b/d/e.txt"]), [2], "as `show` has it");
        assert_eq!(taken(&FILES, &["b/?"]), [2]);
        assert_eq!(taken(&FILES, &["f/b.txt", "4"]), [3, 4]);
        assert_eq!(
            taken(&FILES, &["*"]),
            [] as [usize; 0],
            "all is the same as no choice"
        );
    }

    #[test]
    fn what_takes_nothing_is_refused() {
        for nothing in ["5", "x*", "b/*/x", "B"] {
            let choice = [nothing.parse().unwrap()];
            assert!(priorities(&torrent(&FILES), &choice).is_err(), "{nothing}");
        }
        let choice = ["7,9-12".parse().unwrap()];
        let error = priorities(&torrent(&FILES), &choice).unwrap_err();
        assert!(
            error.contains("7,9-12") && error.contains("0 to 4"),
            "{error}"
        );
        for wrong in ["", "/", "3-1", "1-", "-", "99999999999"] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn stars_reach_as_far_as_needed_and_not_over_folders() {
        for (pattern, text, due) in [
            ("*", "", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXb", false),
            ("*a", "ba/a", false),
            ("*/a", "ba/a", true),
            ("?", "é", true),
            ("?", "/", false),
            ("**x", "x", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(fits(pattern, text), due, "{pattern} {text}");
        }
        let long = "a".repeat(2000);
        assert!(!fits(&"*a".repeat(30), &(long + "b")));
    }
}
