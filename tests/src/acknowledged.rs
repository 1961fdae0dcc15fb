//! What a server has acknowledged, and whether it is so after its end at any moment: the oracle of the
//! tests that kill it and that cut its power.

use crate::served::Served;
use crate::server::SHORT;
use crate::torrent::Torrent;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Torrents that commands are about.
const SUBJECTS: u64 = 6;

/// The longest time from the commands to the end, in milliseconds.
const END_WITHIN_MS: u64 = 300;

/// The longest time that files of removed torrents may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// Numbers that look random, from a seed that a failure names.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// What a torrent is to be like, by what was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Wanted {
    is_there: bool,
    label: Option<String>,
    upload_rate: Option<u64>,
    folder: PathBuf,
    /// The path of its file in it.
    path: String,
    /// Whether it was removed with its data.
    is_data_gone: bool,
}

/// A torrent of the kill test.
struct Subject {
    name: String,
    file: PathBuf,
    content: Vec<u8>,
    /// Whether its data were ever to go.
    was_deleted: bool,
    hash: String,
    /// All that it may be: more than one, while a command was under way at the kill.
    may_be: Vec<Wanted>,
}

/// A command about one torrent, and what it is like then.
fn command(dice: &mut Dice, subject: &Subject, folders: &[PathBuf]) -> (Vec<String>, Wanted) {
    let now = subject.may_be[0].clone();
    let text = |path: &Path| path.display().to_string();
    let hash = subject.hash.clone();
    if !now.is_there {
        // Its data stay where they were when it was removed, under the name that they had; if they
        // were to go with it, they are made again.
        let has_it = |folder: &&PathBuf| !names(folder, &subject.name).is_empty();
        let folder = match folders.iter().find(has_it) {
            Some(folder) => folder.clone(),
            None => {
                assert!(subject.was_deleted, "the data of {} are gone", subject.name);
                std::fs::write(folders[0].join(&subject.name), &subject.content).unwrap();
                let file = std::fs::File::open(folders[0].join(&subject.name));
                file.unwrap().sync_all().unwrap();
                folders[0].clone()
            }
        };
        call_as_made(&folder, &subject.name);
        let words = ["add", &text(&subject.file), "-d", &text(&folder)];
        let then = Wanted {
            is_there: true,
            folder,
            path: subject.name.clone(),
            ..Wanted::default()
        };
        return (words.map(str::to_owned).to_vec(), then);
    }
    match dice.below(6) {
        0 => {
            let words = vec!["remove".to_owned(), hash];
            (words, Wanted::default())
        }
        5 => {
            let words = ["remove", &hash, "--with-data", "--yes"].map(str::to_owned);
            let then = Wanted {
                is_data_gone: true,
                ..Wanted::default()
            };
            (words.to_vec(), then)
        }
        1 => {
            let label = format!("label{}", dice.below(1000));
            let words = ["label", &hash, "--set", &label]
                .map(str::to_owned)
                .to_vec();
            let label = Some(label);
            (words, Wanted { label, ..now })
        }
        2 => {
            let rate = 1_000_000 + dice.below(1_000_000);
            let words = ["limit", &hash, "--up", &format!("{rate}B/s")];
            let upload_rate = Some(rate);
            let words = words.map(str::to_owned).to_vec();
            (words, Wanted { upload_rate, ..now })
        }
        3 => {
            let path = format!("{}.v{}", subject.name, dice.below(1000));
            let words = ["rename", &hash, "--file", "0", &path]
                .map(str::to_owned)
                .to_vec();
            (words, Wanted { path, ..now })
        }
        _ => {
            let folder = folders[usize::from(now.folder == folders[0])].clone();
            let words = ["move", &hash, "--to", &text(&folder)]
                .map(str::to_owned)
                .to_vec();
            (words, Wanted { folder, ..now })
        }
    }
}

/// The names in a folder that a torrent's file has.
fn names(folder: &Path, name: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|found| found == name || found.starts_with(&format!("{name}.v")))
        .collect()
}

/// Waits until a torrent's file is gone: who removed it with its data may have been told so before.
fn until_gone(folder: &Path, name: &str) {
    let begun = std::time::Instant::now();
    while !names(folder, name).is_empty() {
        let found = names(folder, name);
        assert!(
            begun.elapsed() < GONE_WITHIN,
            "{found:?} of {name} stay in {folder:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Gives a file that is nobody's the name again that its torrent says, also after a loss of power.
fn call_as_made(folder: &Path, name: &str) {
    let found = names(folder, name);
    assert_eq!(found.len(), 1, "{name} has more names than one");
    std::fs::rename(folder.join(&found[0]), folder.join(name)).unwrap();
    std::fs::File::open(folder).unwrap().sync_all().unwrap();
}

/// The path of a torrent's file, as the server says it.
fn path(server: &Served, hash: &str) -> String {
    let files = server.say(["files", hash, "--json"]).json();
    files[0]["path"].as_str().unwrap().to_owned()
}

/// What the server says of a torrent; it may be on its way to its folder.
fn found(server: &Served, subject: &Subject) -> Wanted {
    let wanted = |torrents: &[serde_json::Value]| {
        let is_it = |torrent: &&serde_json::Value| torrent["info_hash"] == *subject.hash;
        match torrents.iter().find(is_it) {
            Some(torrent) => Wanted {
                is_there: true,
                label: torrent["labels"][0].as_str().map(str::to_owned),
                upload_rate: torrent["limits"]["upload_rate"].as_u64(),
                folder: torrent["save_path"].as_str().unwrap().into(),
                path: path(server, &subject.hash),
                is_data_gone: false,
            },
            None => {
                let gone = subject.may_be.iter().find(|may_be| !may_be.is_there);
                gone.cloned().unwrap_or_default()
            }
        }
    };
    let may_be = |torrents: &[serde_json::Value]| subject.may_be.contains(&wanted(torrents));
    // A move that was acknowledged goes on after the start.
    let what = format!("torrent {} as any of {:?}", subject.hash, subject.may_be);
    wanted(&server.wait(&what, may_be))
}

/// A server's torrents, as they must be by what it has acknowledged.
pub struct Acknowledged {
    subjects: Vec<Subject>,
    dice: Dice,
    folders: [PathBuf; 2],
}

impl Acknowledged {
    /// Torrents that `server` does not have yet, with their data in the first of two folders.
    pub fn new(server: &Served, folders: [PathBuf; 2]) -> Acknowledged {
        let subject = |number: u64| {
            let file = server.make(&format!("t{number}"), 300_000 + number);
            let hash = Torrent::read(&file).info_hash_hex();
            let content = std::fs::read(folders[0].join(format!("t{number}"))).unwrap();
            let may_be = vec![Wanted::default()];
            Subject {
                name: format!("t{number}"),
                file,
                content,
                was_deleted: false,
                hash,
                may_be,
            }
        };
        Acknowledged {
            subjects: (0..SUBJECTS).map(subject).collect(),
            dice: Dice(7),
            folders,
        }
    }

    /// Has the server do something with each torrent, and at any moment of that calls `end`, which
    /// may bring it to its end; then kills it.
    pub fn until_the_end(&mut self, server: &mut Served, end: impl FnOnce()) {
        let mut running = Vec::new();
        for subject in &mut self.subjects {
            let (words, then) = command(&mut self.dice, subject, &self.folders);
            subject.was_deleted |= then.is_data_gone;
            // Of one that is added again they were made again.
            subject.may_be[0].is_data_gone = false;
            let mut command = server.command(&words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            running.push((command.spawn().unwrap(), then));
        }
        std::thread::sleep(Duration::from_millis(self.dice.below(END_WITHIN_MS)));
        end();
        server.process.signal(Signal::KILL);
        server.process.wait_exit(SHORT);
        for ((mut child, then), subject) in running.into_iter().zip(&mut self.subjects) {
            // Acknowledged: so it is. Else it is so, or as it was.
            match child.wait().unwrap().code() {
                Some(0) => subject.may_be = vec![then],
                Some(1) => subject.may_be.push(then),
                other => panic!("a command of this test ended with {other:?}"),
            }
        }
    }

    /// Fails unless all is in one of the states that it may be in.
    pub fn check(&mut self, server: &Served, round: usize) {
        for subject in &mut self.subjects {
            let found = found(server, subject);
            assert!(
                subject.may_be.contains(&found),
                "round {round}, {}: {found:?} is none of {:?}",
                subject.hash,
                subject.may_be
            );
            if found.is_data_gone {
                for folder in &self.folders {
                    until_gone(folder, &subject.name);
                }
            }
            subject.may_be = vec![found];
        }
    }

    /// Fails unless the data of all that is there are whole where they are said to be, under the
    /// name that is said, and there alone.
    pub fn check_data(&self, server: &Served) {
        let there = self
            .subjects
            .iter()
            .filter(|subject| subject.may_be[0].is_there);
        for subject in there.clone() {
            server.ok(["recheck", &subject.hash]);
        }
        server.wait("check without fault", |torrents| {
            torrents.iter().all(|torrent| {
                let is_whole = torrent["pieces_verified"] == torrent["pieces"];
                is_whole && torrent["status"] == "seeding"
            })
        });
        for subject in there {
            let wanted = &subject.may_be[0];
            let found = self.folders.each_ref().map(|folder| {
                let is_it = *folder == wanted.folder;
                (is_it, names(folder, &subject.name))
            });
            for (is_it, names) in found {
                let expected = is_it.then(|| wanted.path.clone());
                assert_eq!(names, Vec::from_iter(expected), "{wanted:?}");
            }
        }
    }
}
