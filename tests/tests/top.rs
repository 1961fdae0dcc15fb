//! `seedring top` in a real terminal, which is tmux's: keys go in, screens come out as text.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::need;
use seedring_tests::served::Served;
use seedring_tests::server::binary;
use seedring_tests::skip::{Skip, program};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a screen to be as it should be.
const LONG: Duration = Duration::from_secs(60);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A terminal, and what runs in it.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// Starts `top` in a terminal.
    fn start(server: &Served) -> Terminal {
        Terminal::run(server, "top")
    }

    /// Starts a command in a terminal of 80 columns and 24 rows; a shell follows it.
    fn run(server: &Served, command: &str) -> Terminal {
        let terminal = Terminal {
            folder: TempDir::new().unwrap(),
        };
        // The shell that follows tells how it ended, and what the terminal is like then.
        let script = terminal.folder.path().join("script");
        let line = format!(
            "trap : INT\n'{}' {command} --state-dir '{}'\necho \"ended with $?\"\nstty -a | tr ';' '\\n' \
             | grep -ow -e '-\\?icanon' -e '-\\?echo' | tr '\\n' ' '\necho\nexec cat\n",
            binary().display(),
            server.state().display()
        );
        std::fs::write(&script, line).unwrap();
        let shell = format!("sh '{}'", script.display());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            &shell,
        ]);
        terminal
    }

    /// Runs a command of tmux: what it prints.
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", "seedring"])
            .args(arguments)
            .env("TMUX_TMPDIR", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.folder.path())
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types text as it is.
    fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses keys by their names.
    fn keys(&self, keys: &[&str]) {
        let line: Vec<&str> = std::iter::once("send-keys")
            .chain(keys.iter().copied())
            .collect();
        self.tmux(&line);
    }

    /// What it shows.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    fn wait(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + LONG;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "no {what}:\n{screen}");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until this is on the screen.
    fn shows(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", "seedring", "kill-server"])
            .env("TMUX_TMPDIR", self.folder.path())
            .stderr(Stdio::null())
            .status();
    }
}

fn tmux() -> Result<(), Skip> {
    program("tmux", "tmux").map(drop)
}

fn add(server: &Served, name: &str, length: u64) {
    let torrent = server.make(name, length);
    let data = server.path("data");
    server.ok([Path::new("add"), &torrent, Path::new("-d"), &data]);
}

/// The row of a torrent.
fn row<'a>(screen: &'a str, name: &str) -> Option<&'a str> {
    screen.lines().skip(4).find(|line| line.contains(name))
}

#[test]
fn torrents_are_added_watched_filtered_paused_and_removed() {
    need!(
        "torrents_are_added_watched_filtered_paused_and_removed",
        tmux()
    );
    let server = Served::start();
    add(&server, "first.bin", 50_000);
    let terminal = Terminal::start(&server);
    let is_seeding =
        |screen: &str, name| row(screen, name).is_some_and(|row| row.contains("seeding"));
    terminal.wait("seeding", |screen| is_seeding(screen, "first.bin"));
    let second = server.make("second.bin", 60_000);
    terminal.keys(&["a"]);
    terminal.shows("Add (magnet link");
    let folder = server.path("data/second.bin");
    terminal.text(folder.to_str().unwrap());
    terminal.keys(&["Enter"]);
    terminal.shows("added: second.bin");
    drop(second);
    terminal.wait("both", |screen| is_seeding(screen, "second.bin"));
    let screen = terminal.shows("2 seeding");
    assert!(
        screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );

    terminal.text("/FIRST");
    terminal.wait("one of them", |screen| {
        row(screen, "second.bin").is_none() && screen.contains("1 of 2 torrents: \"FIRST\"")
    });
    terminal.keys(&["Enter", "p"]);
    terminal.shows("paused 1 torrent");
    terminal.wait("paused", |screen| {
        row(screen, "first.bin").is_some_and(|row| row.contains("paused"))
    });
    terminal.text("x");
    terminal.wait("the other", |screen| is_seeding(screen, "second.bin"));
    terminal.text("/first");
    terminal.keys(&["Enter", "d"]);
    terminal.shows("Remove first.bin? y/n");
    terminal.text("n");
    terminal.wait("no question", |screen| !screen.contains("y/n"));
    assert!(row(&terminal.screen(), "first.bin").is_some());
    terminal.text("dy");
    terminal.shows("removed 1 torrent");
    terminal.text("x");
    terminal.wait("one torrent", |screen| row(screen, "first.bin").is_none());
    assert_eq!(server.torrents().len(), 1);
    assert!(server.path("data/first.bin").is_file(), "its data stay");
    terminal.text("q");
    terminal.shows("ended with 0");
    terminal.shows("icanon echo");
}

#[test]
fn a_torrent_is_looked_at_while_the_terminal_changes_its_size() {
    need!(
        "a_torrent_is_looked_at_while_the_terminal_changes_its_size",
        tmux()
    );
    let server = Served::start();
    add(&server, "looked-at.bin", 500_000);
    let terminal = Terminal::start(&server);
    terminal.shows("looked-at.bin");
    terminal.keys(&["Enter"]);
    terminal.shows("Saved in:");
    terminal.keys(&["Tab"]);
    terminal.shows("[2 Files]");
    terminal.wait("the file", |screen| row(screen, "488 KiB").is_some());
    terminal.text("3");
    terminal.shows("no peer is connected");
    terminal.text("5");
    terminal.wait("all pieces", |screen| {
        screen.contains("pieces 100%") && screen.contains("███")
    });
    terminal.text("6");
    terminal.shows("This torrent has had no error.");
    terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    let screen = terminal.wait("a small screen", |screen| {
        screen.lines().count() <= 12 && screen.contains("Esc back")
    });
    assert!(
        screen.lines().all(|line| line.chars().count() <= 40),
        "{screen}"
    );
    terminal.tmux(&["resize-window", "-x", "120", "-y", "30"]);
    terminal.shows("q quit");
    terminal.keys(&["Escape"]);
    terminal.shows("peers");
    terminal.text("?");
    terminal.shows("what the keys do");
    terminal.text("q");
    terminal.shows("looked-at.bin");
    terminal.keys(&["C-c"]);
    terminal.shows("ended with 0");
}

#[test]
fn a_server_that_restarts_is_waited_for() {
    need!("a_server_that_restarts_is_waited_for", tmux());
    let mut server = Served::start();
    add(&server, "kept.bin", 50_000);
    let terminal = Terminal::start(&server);
    terminal.shows("kept.bin");
    server.stop();
    let screen = terminal.shows("not connected, retrying");
    assert!(
        row(&screen, "kept.bin").is_some(),
        "what is known stays:\n{screen}"
    );
    server.again();
    terminal.wait("the server again", |screen| {
        !screen.contains("not connected") && row(screen, "kept.bin").is_some()
    });
    add(&server, "new.bin", 60_000);
    terminal.shows("new.bin");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    need!("a_signal_gives_the_terminal_back", tmux());
    let server = Served::start();
    add(&server, "x.bin", 50_000);
    let terminal = Terminal::start(&server);
    terminal.shows("x.bin");
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let children = format!("/proc/{0}/task/{0}/children", shell.trim());
    let children = std::fs::read_to_string(children).unwrap();
    let child = children.split_whitespace().next().unwrap();
    let killed = Command::new("kill").arg(child).status().unwrap();
    assert!(killed.success());
    terminal.shows("ended with 0");
    terminal.shows("icanon echo");
}

#[test]
fn who_removes_data_at_a_terminal_is_asked() {
    need!("who_removes_data_at_a_terminal_is_asked", tmux());
    let server = Served::start();
    add(&server, "dear.bin", 50_000);
    let data = server.path("data/dear.bin");
    let question = "Remove \"dear.bin\" and delete the data? [y/N]";
    let terminal = Terminal::run(&server, "remove dear.bin --with-data");
    terminal.shows(question);
    terminal.keys(&["Enter"]);
    terminal.shows("nothing was removed");
    terminal.shows("ended with 1");
    assert!(data.is_file() && server.torrents().len() == 1);
    let terminal = Terminal::run(&server, "remove dear.bin --with-data");
    terminal.shows(question);
    terminal.text("y");
    terminal.keys(&["Enter"]);
    terminal.shows("removed 1 torrent");
    terminal.shows("ended with 0");
    assert!(!data.exists() && server.torrents().is_empty());
}

#[test]
fn a_list_fits_the_terminal_and_follows_it() {
    need!("a_list_fits_the_terminal_and_follows_it", tmux());
    let server = Served::start();
    let long = format!("{}.bin", "long-name-".repeat(12));
    add(&server, &long, 50_000);
    let terminal = Terminal::run(&server, "list --watch");
    let screen = terminal.shows("seeding");
    let line = screen
        .lines()
        .find(|line| line.contains("long-name-"))
        .unwrap();
    assert!(line.contains('…') && line.contains("100%"), "{screen}");
    add(&server, "second.bin", 60_000);
    terminal.shows("second.bin");
    terminal.keys(&["C-c"]);
    terminal.shows("ended with 130");
}
