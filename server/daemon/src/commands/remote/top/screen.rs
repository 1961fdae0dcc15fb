//! What the screen shows and what is going on in it: a state that events change, and that says what
//! is to be done. It asks nobody and draws nothing.
//!
//! Limits: the copy's, and [`LOG_LINES_MAX`].

use super::copy::{Copy, View};
use super::history::History;
use super::pieces::PieceMap;
use control::api::types::{
    BulkAction, Changes, FileStatus, LogLine, PeerStatus, ServerStatus, TorrentDetails,
    TrackerStatus,
};
use ratatui::crossterm::event::KeyEvent;
use std::collections::{BTreeSet, VecDeque};

/// Lines of the log that are kept.
const LOG_LINES_MAX: usize = 200;
/// Lines above the list, and below it.
pub const HEAD_LINES: usize = 4;
pub const FOOT_LINES: usize = 2;

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has so many columns and rows now.
    Size(u16, u16),
    /// Torrents have changed.
    Changes(Box<Changes>),
    /// What the server as a whole does.
    Server(Box<ServerStatus>),
    /// The server does not answer, and why.
    Lost(String),
    /// Something is known of a torrent.
    Detail(String, Part),
    /// What was asked for is done.
    Done(String),
    /// What was asked for cannot be done.
    Failed(String),
    /// The process is told to end.
    End,
}

/// Something that is known of a torrent.
#[derive(Debug)]
pub enum Part {
    /// All but what follows.
    Overview(Box<TorrentDetails>),
    /// Its files.
    Files(Vec<FileStatus>),
    /// Its peers.
    Peers(Vec<PeerStatus>),
    /// Its trackers.
    Trackers(Vec<TrackerStatus>),
    /// Its pieces.
    Pieces(PieceMap),
    /// The last lines of the server's log, of which it is no part; the newest last.
    Log(Vec<LogLine>),
}

/// Something to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Leave.
    Quit,
    /// Find out this of a torrent, again and again; nothing any more.
    Watch(Option<(String, Tab)>),
    /// Ask this of the server.
    Ask(Request),
}

/// Something to ask of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Do this to torrents.
    Act {
        /// What.
        action: BulkAction,
        /// To which.
        torrents: Vec<String>,
        /// Whether their data are deleted.
        with_data: bool,
    },
    /// Add a torrent.
    Add(String),
    /// Limit rates of torrents: up and down. `None` is the default's.
    Limit(Vec<String>, Option<u64>, Option<u64>),
    /// Limit rates of the server: up and down.
    LimitServer(Option<u64>, Option<u64>),
}

/// A part of what is shown of a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tab {
    /// What it is.
    #[default]
    Overview,
    /// Its files.
    Files,
    /// Its peers.
    Peers,
    /// Its trackers.
    Trackers,
    /// Its pieces.
    Pieces,
    /// What has been said.
    Log,
}

impl Tab {
    /// All of them, from the left to the right.
    pub const ALL: [Tab; 6] = [
        Tab::Overview,
        Tab::Files,
        Tab::Peers,
        Tab::Trackers,
        Tab::Pieces,
        Tab::Log,
    ];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Tab::Overview => "Overview",
            Tab::Files => "Files",
            Tab::Peers => "Peers",
            Tab::Trackers => "Trackers",
            Tab::Pieces => "Pieces",
            Tab::Log => "Log",
        }
    }

    /// The one beside it.
    pub fn step(self, forward: bool) -> Tab {
        let all = Tab::ALL;
        let at = all.iter().position(|one| *one == self).unwrap_or(0);
        let steps = if forward { 1 } else { all.len() - 1 };
        all[(at + steps) % all.len()]
    }
}

/// A torrent that is looked at.
#[derive(Default)]
pub struct Detail {
    /// Which.
    pub hash: String,
    /// What of it.
    pub tab: Tab,
    /// Lines that are above the first one shown.
    pub scroll: usize,
    /// What is known of it.
    pub overview: Option<Box<TorrentDetails>>,
    /// See [`Part`].
    pub files: Option<Vec<FileStatus>>,
    /// See [`Part`].
    pub peers: Option<Vec<PeerStatus>>,
    /// See [`Part`].
    pub trackers: Option<Vec<TrackerStatus>>,
    /// See [`Part`].
    pub pieces: Option<PieceMap>,
    /// Its rates since it was opened.
    pub up: History,
    /// The same of what is received.
    pub down: History,
}

/// Something that is above everything else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Overlay {
    /// What the keys do.
    Help,
    /// Text is asked for.
    Prompt(Prompt, String),
    /// A yes or no is asked for.
    Confirm(String, Request),
}

/// For what text is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prompt {
    /// A torrent to add.
    Add,
    /// What is in the names of those that are shown.
    Text,
    /// The label of those that are shown.
    Label,
    /// Limits of torrents.
    Limits,
    /// Limits of the server.
    ServerLimits,
}

/// Whether the server answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Connection {
    /// It has not been heard of.
    #[default]
    Begun,
    /// It does.
    Up,
    /// It does not, and why.
    Lost(String),
}

/// All of it.
#[derive(Default)]
pub struct Screen {
    /// The server's torrents.
    pub copy: Copy,
    /// Which are shown.
    pub view: View,
    /// The hashes of those that are shown, in order.
    pub order: Vec<String>,
    /// The one under the cursor.
    pub selected: Option<String>,
    /// The place of the first one that is on the screen.
    pub first: usize,
    /// Those that the next action is for.
    pub marked: BTreeSet<String>,
    /// The torrent that is looked at.
    pub detail: Option<Detail>,
    /// What is above everything else.
    pub overlay: Option<Overlay>,
    /// What is known of the server.
    pub server: Option<Box<ServerStatus>>,
    /// Whether it answers.
    pub connection: Connection,
    /// What was sent each second.
    pub up: History,
    /// What was received.
    pub down: History,
    /// What was said, the newest last.
    pub log: VecDeque<String>,
    /// What the server has logged, the newest last.
    pub server_log: Vec<LogLine>,
    /// What is to be said now, and whether it is something that failed.
    pub message: Option<(String, bool)>,
    /// The terminal's columns and rows.
    pub size: (u16, u16),
}

impl Screen {
    /// A screen of so many columns and rows that knows nothing yet.
    pub fn new(columns: u16, rows: u16) -> Screen {
        Screen {
            size: (columns, rows),
            ..Screen::default()
        }
    }

    /// Takes something that has happened, and says what is to be done.
    pub fn handle(&mut self, event: Event) -> Option<Command> {
        match event {
            Event::Key(key) => return self.key(key),
            Event::Paste(text) => self.paste(&text),
            Event::Size(columns, rows) => {
                self.size = (columns, rows);
                self.scroll_to_selected();
            }
            Event::Changes(changes) => return self.changed(*changes),
            Event::Server(server) => {
                self.up.push(server.upload_rate);
                self.down.push(server.download_rate);
                self.server = Some(server);
                self.connected();
            }
            Event::Lost(why) => {
                if !matches!(self.connection, Connection::Lost(_)) {
                    self.note(&format!("not connected: {why}"));
                }
                self.connection = Connection::Lost(why);
            }
            Event::Detail(hash, part) => self.learn(&hash, part),
            Event::Done(text) => self.say(text, false),
            Event::Failed(text) => self.say(text, true),
            Event::End => return Some(Command::Quit),
        }
        None
    }

    fn connected(&mut self) {
        if matches!(self.connection, Connection::Lost(_)) {
            self.note("connected again");
        }
        self.connection = Connection::Up;
    }

    fn changed(&mut self, changes: Changes) -> Option<Command> {
        self.connected();
        self.copy.apply(changes);
        self.marked.retain(|hash| self.copy.torrent(hash).is_some());
        self.reorder();
        let gone = |detail: &Detail| self.copy.torrent(&detail.hash).is_none();
        if self.detail.as_ref().is_some_and(gone) {
            self.detail = None;
            self.say("the torrent was removed".to_owned(), false);
            return Some(Command::Watch(None));
        }
        None
    }

    fn learn(&mut self, hash: &str, part: Part) {
        let part = match part {
            Part::Log(lines) => {
                self.server_log = lines;
                return;
            }
            part => part,
        };
        let Some(detail) = self.detail.as_mut().filter(|detail| detail.hash == hash) else {
            return;
        };
        match part {
            Part::Overview(overview) => {
                detail.up.push(overview.torrent.upload_rate);
                detail.down.push(overview.torrent.download_rate);
                detail.overview = Some(overview);
            }
            Part::Files(files) => detail.files = Some(files),
            Part::Peers(peers) => detail.peers = Some(peers),
            Part::Trackers(trackers) => detail.trackers = Some(trackers),
            Part::Pieces(pieces) => detail.pieces = Some(pieces),
            // No part of a torrent: taken above.
            Part::Log(_) => {}
        }
    }

    /// Shows a message until another comes or a key is pressed, and keeps it in the log.
    pub fn say(&mut self, text: String, is_failure: bool) {
        self.note(&text);
        self.message = Some((text, is_failure));
    }

    fn note(&mut self, text: &str) {
        if self.log.len() == LOG_LINES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(text.to_owned());
    }

    /// Sorts and filters anew. The cursor stays on its torrent; if that is not shown any more, on
    /// its place.
    pub fn reorder(&mut self) {
        let place = self.place();
        self.order = self.copy.ordered(&self.view);
        let is_shown = self
            .selected
            .as_ref()
            .is_some_and(|hash| self.order.contains(hash));
        if !is_shown {
            let last = self.order.len().saturating_sub(1);
            self.selected = self.order.get(place.unwrap_or(0).min(last)).cloned();
        }
        self.scroll_to_selected();
    }

    /// The place of the cursor.
    pub fn place(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.order.iter().position(|hash| hash == selected)
    }

    /// Moves the cursor.
    pub fn go_to(&mut self, place: usize) {
        let last = self.order.len().saturating_sub(1);
        self.selected = self.order.get(place.min(last)).cloned();
        self.scroll_to_selected();
    }

    /// Rows of torrents that the terminal has room for.
    pub fn list_rows(&self) -> usize {
        usize::from(self.size.1)
            .saturating_sub(HEAD_LINES + FOOT_LINES)
            .max(1)
    }

    fn scroll_to_selected(&mut self) {
        let (rows, place) = (self.list_rows(), self.place().unwrap_or(0));
        let last_first = self.order.len().saturating_sub(rows);
        self.first = self
            .first
            .clamp((place + 1).saturating_sub(rows), place)
            .min(last_first);
    }

    /// Those that an action is for: the one that is looked at, else those that are marked, else the
    /// one under the cursor.
    pub fn targets(&self) -> Vec<String> {
        match (&self.detail, self.marked.is_empty()) {
            (Some(detail), _) => vec![detail.hash.clone()],
            (None, false) => self.marked.iter().cloned().collect(),
            (None, true) => self.selected.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::commands::remote::columns::tests::torrent;

    /// The hash of a torrent for tests.
    pub fn hash(number: usize) -> String {
        format!("{number:040x}")
    }

    /// A screen with so many torrents, the last added first.
    pub fn screen(torrents: usize) -> Screen {
        let mut screen = Screen::new(80, 24);
        screen.handle(Event::Changes(Box::new(all(torrents))));
        screen
    }

    /// Changes that tell of so many torrents.
    pub fn all(torrents: usize) -> Changes {
        let one = |number: usize| {
            let mut one = torrent(&hash(number), &format!("torrent {number}"));
            one.added_at_s = number as u64;
            one
        };
        Changes {
            revision: 1,
            begun: None,
            begins_anew: true,
            has_more: false,
            changed: (0..torrents).map(one).collect(),
            removed: Vec::new(),
        }
    }

    #[test]
    fn the_cursor_stays_on_its_torrent_and_in_view() {
        let mut screen = screen(100);
        assert_eq!(screen.selected, Some(hash(99)));
        screen.go_to(50);
        assert_eq!(
            (screen.selected.clone(), screen.first),
            (Some(hash(49)), 33)
        );
        screen.view.is_reversed = true;
        screen.reorder();
        assert_eq!((screen.place(), screen.first), (Some(49), 33));
        screen.handle(Event::Size(80, 10));
        assert_eq!((screen.list_rows(), screen.first), (4, 46));
        screen.handle(Event::Size(80, 200));
        assert_eq!(screen.first, 0, "all have room");
        screen.handle(Event::Size(1, 1));
        assert_eq!((screen.list_rows(), screen.first), (1, 49));
        let removed = Changes {
            removed: vec![hash(49)],
            ..Changes::default()
        };
        screen.handle(Event::Changes(Box::new(removed)));
        assert_eq!(screen.selected, Some(hash(50)), "who is in its place now");
        screen.handle(Event::Changes(Box::new(all(1))));
        assert_eq!((screen.selected.clone(), screen.first), (Some(hash(0)), 0));
        screen.handle(Event::Changes(Box::new(all(0))));
        assert_eq!((screen.selected.clone(), screen.first), (None, 0));
    }

    #[test]
    fn a_server_that_has_gone_is_told_and_its_torrents_stay_until_it_is_back() {
        let mut screen = screen(3);
        screen.marked.insert(hash(2));
        screen.handle(Event::Lost("gone".into()));
        screen.handle(Event::Lost("gone".into()));
        assert_eq!(screen.connection, Connection::Lost("gone".into()));
        assert_eq!(screen.order.len(), 3);
        assert_eq!(screen.log, ["not connected: gone"], "told once");
        screen.handle(Event::Changes(Box::new(all(2))));
        assert_eq!(screen.connection, Connection::Up);
        assert_eq!((screen.order.len(), screen.marked.len()), (2, 0));
        assert_eq!(screen.log.back().unwrap(), "connected again");
    }

    #[test]
    fn what_is_known_of_another_torrent_is_not_shown() {
        let mut screen = screen(3);
        screen.detail = Some(Detail {
            hash: hash(1),
            ..Detail::default()
        });
        screen.handle(Event::Detail(hash(2), Part::Files(Vec::new())));
        assert!(screen.detail.as_ref().unwrap().files.is_none());
        screen.handle(Event::Detail(hash(1), Part::Files(Vec::new())));
        assert!(screen.detail.as_ref().unwrap().files.is_some());
        let command = screen.handle(Event::Changes(Box::new(all(1))));
        assert_eq!(command, Some(Command::Watch(None)), "it is gone");
        assert!(screen.detail.is_none());
    }

    #[test]
    fn the_log_is_bounded() {
        let mut screen = screen(0);
        for number in 0..2 * LOG_LINES_MAX {
            screen.handle(Event::Done(number.to_string()));
        }
        assert_eq!(screen.log.len(), LOG_LINES_MAX);
        assert_eq!(
            screen.message,
            Some((format!("{}", 2 * LOG_LINES_MAX - 1), false))
        );
    }
}
