//! What the user of `seedring get` sees: a bar on a terminal, a line now and then elsewhere, JSON
//! for programs.
//!
//! Limits: [`FILES_SHOWN_MAX`] files are named at a time.

use super::trackers::News;
use crate::progress::{counted, first_of, print, print_json, shown};
use engine::peer_list::PeerSource;
use indicatif::{
    BinaryBytes, DecimalBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};
use proto::metainfo::Metainfo;
use proto::text::printable;
use seedring_io::fetch::{FetchProgress, Needs};
use seedring_io::system;
use serde_json::json;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the bar moves.
pub const BAR_PERIOD: Duration = Duration::from_millis(250);

/// How often a line is printed where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// How often a JSON line is printed.
const JSON_PERIOD: Duration = Duration::from_secs(1);

/// The time over which rates are taken.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// The longest name that is shown, in characters.
const NAME_CHARS_MAX: usize = 200;

/// How often it is told where there is no terminal that what is there is being seeded.
const SEEDING_PERIOD: Duration = Duration::from_secs(60);

/// What the terminal shows: one line, cut to its width.
const MESSAGE: &str = "{wide_msg}";

/// The bar's cells at most, and below how many it is left out.
const CELLS_MAX: usize = 30;
const CELLS_MIN: usize = 6;

/// How wide a terminal is that does not say it.
const COLUMNS: usize = 80;

/// Files that are named in one message.
const FILES_SHOWN_MAX: usize = 5;

/// Tells how a download goes.
pub struct Display {
    form: Form,
    printed: Cell<Instant>,
    down: Rate,
    up: Rate,
    /// What each source of peers has said, while there is none.
    waiting: Vec<String>,
}

enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
}

/// A rate over the last few seconds.
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

/// What is there of what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    pub bytes_done: u64,
    pub bytes_total: u64,
}

impl Share {
    /// Of a download: with files left out, what is wanted is the whole.
    pub fn of(progress: &FetchProgress) -> Share {
        Share {
            bytes_done: progress.bytes_stored,
            // Either counts the last piece, which may be shorter, as a whole one while it is not
            // among its pieces.
            bytes_total: (progress.bytes_stored + progress.bytes_wanted).min(progress.bytes),
        }
    }

    /// In percent, 100 only when all is there.
    pub fn percent(self) -> u64 {
        let percent = u128::from(self.bytes_done) * 100 / u128::from(self.bytes_total.max(1));
        u64::try_from(percent).unwrap_or(100)
    }
}

impl Display {
    /// JSON on stdout if `json`; else people read stderr.
    pub fn new(json: bool) -> Display {
        let form = if json {
            Form::Json
        } else if std::io::stderr().is_terminal() {
            Form::Bar(bar())
        } else {
            Form::Lines
        };
        Display {
            form,
            printed: Cell::new(Instant::now()),
            down: Rate::new(),
            up: Rate::new(),
            waiting: Vec::new(),
        }
    }

    /// What each source of peers has said, while there is none; nothing when there is one.
    pub fn waiting(&mut self, sources: Vec<String>) {
        self.waiting = sources;
    }

    /// The same as the end of a line.
    fn nobody(&self) -> Option<String> {
        let sources = &self.waiting;
        (!sources.is_empty()).then(|| format!("no peer yet ({})", sources.join("; ")))
    }

    /// Only the hash is known, and so many peers are being asked.
    pub fn metadata(&mut self, peers: u32) {
        let text = || match self.nobody() {
            Some(nobody) => format!("the torrent is still to come: {nobody}"),
            None => format!("asking {} for the torrent", counted(peers.into(), "peer")),
        };
        match &self.form {
            Form::Bar(bar) => bar.set_message(text()),
            Form::Lines if self.is_due(LINE_PERIOD) => eprintln!("{}", text()),
            Form::Json if self.is_due(JSON_PERIOD) => {
                let mut line = json!({"event": "progress", "action": "metadata", "peers": peers});
                self.add_waiting(&mut line);
                print_json(&line);
            }
            Form::Lines | Form::Json => {}
        }
    }

    /// The download begins.
    pub fn started(
        &mut self,
        metainfo: &Metainfo,
        files: (u64, u64),
        share: Share,
        data_dir: &Path,
        port: u16,
    ) {
        let Share {
            bytes_done,
            bytes_total,
        } = share;
        match &self.form {
            Form::Json => print_json(&json!({
                "event": "started",
                "name": metainfo.name,
                "info_hash_v1": metainfo.info_hash_v1.map(|hash| hash.to_string()),
                "data_dir": data_dir.to_string_lossy(),
                "peer_port": port,
                "bytes_done": bytes_done,
                "bytes_total": bytes_total,
                "files": files.1,
                "files_selected": files.0,
            })),
            Form::Bar(_) | Form::Lines => {
                let heading = heading(metainfo, files, bytes_total);
                let mut line = format!("{heading} into {}", shown(data_dir));
                if bytes_done > 0 {
                    line.push_str(&format!(", {} are there", BinaryBytes(bytes_done)));
                }
                self.line(&line);
            }
        }
    }

    /// Where the download is, and how much of it is on stable storage; to be called every
    /// [`BAR_PERIOD`].
    pub fn progress(&mut self, progress: &FetchProgress, bytes_synced: u64) {
        let now = Instant::now();
        let down = self.down.sample(now, progress.downloaded);
        let up = self.up.sample(now, progress.uploaded);
        let share = Share::of(progress);
        // While nothing is requested, nobody knows.
        let goes_on = down > 0 && progress.paused.is_none();
        let left = goes_on.then(|| progress.bytes_wanted.div_ceil(down));
        match &self.form {
            Form::Bar(bar) => {
                let columns = system::terminal_columns().unwrap_or(COLUMNS);
                let message = message(progress, down, up, left);
                bar.set_message(bar_line(share, &message, columns));
            }
            // That it is paused has been said.
            Form::Lines if progress.paused.is_some() => {}
            Form::Lines if self.is_due(LINE_PERIOD) => {
                let total = BinaryBytes(share.bytes_total);
                let message = message(progress, down, up, left);
                let nobody = self
                    .nobody()
                    .map_or_else(String::new, |text| format!("; {text}"));
                eprintln!("{} % of {total}, {message}{nobody}", share.percent());
            }
            Form::Json if self.is_due(JSON_PERIOD) => {
                let mut line = progress_line(progress, down, up, left);
                line["bytes_synced"] = bytes_synced.into();
                self.add_waiting(&mut line);
                print_json(&line);
            }
            Form::Lines | Form::Json => {}
        }
    }

    fn add_waiting(&self, line: &mut serde_json::Value) {
        if !self.waiting.is_empty() {
            line["waiting"] = self.waiting.as_slice().into();
        }
    }

    /// The disk takes nothing; it is tried again. So many bytes are still to be written.
    pub fn paused(&mut self, reason: &str, needs: Needs, missing: u64) {
        let (needs, hint) = match needs {
            Needs::Space => {
                let missing = BinaryBytes(missing);
                let hint =
                    format!("; {missing} are still to come: free space, and it goes on by itself");
                ("space", hint)
            }
            Needs::Disk => (
                "disk",
                "; it goes on by itself when the disk works".to_owned(),
            ),
            Needs::Permission => ("permission", String::new()),
        };
        match self.form {
            Form::Json => print_json(&json!({
                "event": "paused", "reason": reason, "needs": needs, "bytes_missing": missing,
            })),
            _ => self.line(&format!("paused: {reason}{hint}")),
        }
    }

    /// These files are there, and are not known to be the torrent's.
    pub fn replacing(&mut self, files: &[PathBuf]) {
        if files.is_empty() {
            return;
        }
        let some = files.iter().take(FILES_SHOWN_MAX);
        if let Form::Json = self.form {
            let some: Vec<_> = some.map(|path| path.to_string_lossy()).collect();
            print_json(&json!({"event": "replacing", "count": files.len(), "files": some}));
            return;
        }
        let mut names: Vec<_> = some.map(|path| shown(path)).collect();
        if files.len() > names.len() {
            names.push("…".to_owned());
        }
        let (count, verb) = match files.len() {
            1 => ("1 file".to_owned(), "differs from the torrent's and is"),
            more => (
                counted(more as u64, "file"),
                "differ from the torrent's and are",
            ),
        };
        self.line(&format!("{count} {verb} replaced: {}", names.join(", ")));
    }

    /// Names that are not written as the torrent spells them.
    pub fn respelled(&mut self, metainfo: &Metainfo) {
        let mut names = metainfo.respelled();
        let some: Vec<_> = names.by_ref().take(FILES_SHOWN_MAX).collect();
        let count = some.len() + names.count();
        if count == 0 {
            return;
        }
        if let Form::Json = self.form {
            let of = |(name, written): &(Vec<u8>, String)| json!({"name": printable(name, NAME_CHARS_MAX), "written": written});
            let some: Vec<_> = some.iter().map(of).collect();
            print_json(&json!({"event": "respelled", "count": count, "names": some}));
            return;
        }
        let shown = |(name, written): &(Vec<u8>, String)| {
            format!("\"{}\" as \"{written}\"", printable(name, NAME_CHARS_MAX))
        };
        let mut names: Vec<_> = some.iter().map(shown).collect();
        if count > names.len() {
            names.push("…".to_owned());
        }
        let (verb, them) = match count {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        let (count, names) = (counted(count as u64, "name"), names.join(", "));
        self.line(&format!(
            "{count} {verb} not written as the torrent spells {them}: {names}"
        ));
    }

    /// What of the link cannot be read.
    pub fn left_out(&mut self, reasons: &[String]) {
        self.tell_each("left-out", reasons);
    }

    /// Peers and trackers that are not asked, with the reasons.
    pub fn not_asked(&mut self, reasons: &[String]) {
        self.tell_each("not-asked", &first_of(reasons));
    }

    fn tell_each(&self, event: &str, reasons: &[String]) {
        for reason in reasons {
            match self.form {
                Form::Json => print_json(&json!({"event": event, "reason": reason})),
                _ => self.line(reason),
            }
        }
    }

    /// A peer that was named gives nothing.
    pub fn peer_failed(&mut self, peer: SocketAddr, reason: &str) {
        match self.form {
            Form::Json => print_json(
                &json!({"event": "peer-failed", "peer": peer.to_string(), "reason": reason}),
            ),
            // It is nothing of the peer's.
            _ if reason.contains("peers.bind_interface") => {
                self.line(&format!("the peer {peer}: {reason}; it is tried again"));
            }
            _ => self.line(&format!(
                "the peer {peer}: {reason}; it is tried again. Look whether it runs, at this \
                 address and port, with this torrent"
            )),
        }
    }

    /// A tracker does not answer, or with an error, or does after all.
    pub fn tracker_news(&mut self, tracker: &str, news: &News) {
        if let Form::Json = self.form {
            return print_json(&tracker_line(tracker, news));
        }
        self.line(&match news {
            News::Recovered => format!("the tracker {tracker} answers now"),
            News::Silent => format!("the tracker {tracker}: no answer yet; it is waited for"),
            News::Failed(reason) => format!("the tracker {tracker}: {reason}; it is tried again"),
            News::GivenUp(reason) => {
                format!("the tracker {tracker}: {reason}; it is not asked any more")
            }
        });
    }

    /// It goes on after that.
    pub fn resumed(&mut self) {
        match self.form {
            Form::Json => print_json(&json!({"event": "resumed"})),
            _ => self.line("it goes on"),
        }
    }

    /// A peer sent what is not the torrent's.
    pub fn banned(&mut self, peer: SocketAddr) {
        match self.form {
            Form::Json => print_json(&json!({"event": "banned", "peer": peer.to_string()})),
            _ => self.line(&format!("{peer} sent wrong bytes and is kept away")),
        }
    }

    /// All that is wanted is there.
    pub fn complete(
        &mut self,
        metainfo: &Metainfo,
        files: (u64, u64),
        path: &Path,
        progress: &FetchProgress,
        after: Duration,
    ) {
        let share = Share::of(progress);
        if let Form::Json = self.form {
            print_json(&json!({
                "event": "complete",
                "name": metainfo.name,
                "info_hash_v1": metainfo.info_hash_v1.map(|hash| hash.to_string()),
                "path": path.to_string_lossy(),
                "bytes": share.bytes_done,
                "whole": progress.bytes_stored == progress.bytes,
                "files": files.1,
                "files_selected": files.0,
                "downloaded": progress.downloaded,
                "wasted": progress.wasted,
                "uploaded": progress.uploaded,
                "seconds": after.as_secs_f64(),
            }));
            return;
        }
        self.clear();
        print(&(complete_line(path, files, progress, after) + "\n"));
    }

    /// The user has stopped it before it was complete.
    pub fn stopped(&mut self, share: Option<Share>) {
        if let Form::Json = self.form {
            print_json(&json!({
                "event": "stopped",
                "bytes_done": share.map(|share| share.bytes_done),
                "bytes_total": share.map(|share| share.bytes_total),
            }));
            return;
        }
        self.clear();
        match share {
            Some(share) => eprintln!(
                "stopped at {} %: {} of {} are safe; the same command goes on from there",
                share.percent(),
                BinaryBytes(share.bytes_done),
                BinaryBytes(share.bytes_total)
            ),
            None => eprintln!("stopped before anything was there"),
        }
    }

    /// What is there is seeded from now on.
    pub fn seeding_begins(&mut self, port: u16) {
        if let Form::Json = self.form {
            return;
        }
        eprintln!("seeding on port {port}; Ctrl-C stops");
        if let Form::Bar(_) = self.form {
            // The one of the download has ended.
            self.form = Form::Bar(bar());
        }
    }

    /// All is there and is being seeded.
    pub fn seeding(&mut self, uploaded: u64, peers: Option<u64>) {
        let up = self.up.sample(Instant::now(), uploaded);
        let text = || {
            let peers = peers.map_or_else(String::new, |peers| counted(peers, "peer"));
            let (rate, all) = (DecimalBytes(up), BinaryBytes(uploaded));
            format!("seeding: {rate}/s up, {all} in all, {peers}")
        };
        match &self.form {
            Form::Bar(bar) => bar.set_message(text() + "; Ctrl-C stops"),
            Form::Lines if self.is_due(SEEDING_PERIOD) => eprintln!("{}", text()),
            Form::Json if self.is_due(JSON_PERIOD) => print_json(&json!({
                "event": "progress", "action": "seeding",
                "up_bytes_per_s": up, "uploaded": uploaded, "peers": peers,
            })),
            Form::Lines | Form::Json => {}
        }
    }

    /// Takes the bar away, if there is one.
    pub fn clear(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    /// Prints a line for people, above the bar if there is one.
    fn line(&self, text: &str) {
        match &self.form {
            Form::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Form::Lines | Form::Json => eprintln!("{text}"),
        }
    }

    /// Whether the last line is long enough ago; then this is the moment of the next one.
    fn is_due(&self, period: Duration) -> bool {
        let due = self.printed.get().elapsed() >= period;
        if due {
            self.printed.set(Instant::now());
        }
        due
    }
}

impl Rate {
    fn new() -> Rate {
        Rate {
            samples: VecDeque::new(),
        }
    }

    /// Takes how much there is in all, and says how much comes in a second.
    fn sample(&mut self, now: Instant, total: u64) -> u64 {
        while self.samples.len() > 1
            && self
                .samples
                .front()
                .is_some_and(|&(at, _)| now.duration_since(at) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let first = self.samples.front().copied();
        self.samples.push_back((now, total));
        let Some((at, before)) = first else {
            return 0;
        };
        let seconds = now.duration_since(at).as_secs_f64();
        (total.saturating_sub(before) as f64 / seconds.max(0.001)) as u64
    }
}

/// The torrent in a few words, with so many of its `files` selected, which have so many bytes to be
/// fetched.
fn heading(metainfo: &Metainfo, files: (u64, u64), bytes: u64) -> String {
    let name = printable(metainfo.name.as_bytes(), NAME_CHARS_MAX);
    match files.0 < files.1 {
        true => format!("{name}, {} in {}", BinaryBytes(bytes), selected(files)),
        false => {
            let bytes = BinaryBytes(metainfo.content_length());
            format!("{name}, {bytes} in {}", counted(files.1, "file"))
        }
    }
}

/// What is there now, and what came from peers for it: more if some of it was wasted, less if some
/// was there before.
fn complete_line(
    path: &Path,
    files: (u64, u64),
    progress: &FetchProgress,
    after: Duration,
) -> String {
    let share = Share::of(progress);
    let mut line = format!(
        "complete: {}, {}",
        shown(path),
        BinaryBytes(share.bytes_done)
    );
    if files.0 < files.1 {
        line.push_str(&format!(" in {}", selected(files)));
    }
    if progress.downloaded > 0 {
        let rate = progress.downloaded as f64 / after.as_secs_f64().max(0.001);
        line.push_str(&format!(
            "; {} received in {:.1} s, {}/s",
            BinaryBytes(progress.downloaded),
            after.as_secs_f64(),
            DecimalBytes(rate as u64)
        ));
    }
    if progress.wasted > 0 {
        line.push_str(&format!(", {} of it wasted", BinaryBytes(progress.wasted)));
    }
    line
}

/// How many files are wanted of how many.
fn selected((wanted, all): (u64, u64)) -> String {
    format!("{wanted} of {}", counted(all, "file"))
}

/// The line on a terminal: how much is there, how it goes, and a bar in the room that is left for
/// one.
fn bar_line(share: Share, message: &str, columns: usize) -> String {
    let (done, total) = (
        BinaryBytes(share.bytes_done),
        BinaryBytes(share.bytes_total),
    );
    let percent = share.percent();
    let width = |text: &str| text.chars().count();
    let text = format!("{percent:>3} % of {total}, {message}");
    let long = format!("{percent:>3} % {done}/{total}, {message}");
    let text = match width(&long) <= columns {
        true => long,
        false => text,
    };
    // A blank and the brackets.
    let cells = columns.saturating_sub(width(&text) + 3).min(CELLS_MAX);
    if cells < CELLS_MIN {
        return text;
    }
    let full = usize::try_from(percent).unwrap_or(100).min(100) * cells / 100;
    let (full, rest) = match full == cells {
        true => ("=".repeat(cells), 0),
        false => ("=".repeat(full) + ">", cells - full - 1),
    };
    format!("{text} [{full}{}]", " ".repeat(rest))
}

fn message(progress: &FetchProgress, down: u64, up: u64, left: Option<u64>) -> String {
    if let Some(reason) = &progress.paused {
        return format!("paused: {reason}");
    }
    let mut text = format!("{}/s", DecimalBytes(down));
    if let Some(left) = left {
        text.push_str(&format!(
            ", {} left",
            HumanDuration(Duration::from_secs(left))
        ));
    }
    text.push_str(&format!(", {}", counted(progress.peers.into(), "peer")));
    text.push_str(&sources(progress));
    if progress.seeds > 0 {
        text.push_str(&format!(", {}", counted(progress.seeds.into(), "seed")));
    }
    if up > 0 {
        text.push_str(&format!(", {}/s up", DecimalBytes(up)));
    }
    text
}

/// Where the peers come from, if not all from the same.
fn sources(progress: &FetchProgress) -> String {
    let of = |source: PeerSource| (progress.peers_by_source.get(source), source.name());
    let counts = PeerSource::ALL.map(of);
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    match counts.len() {
        0 | 1 => String::new(),
        _ => format!(" ({})", counts.join(", ")),
    }
}

fn progress_line(
    progress: &FetchProgress,
    down: u64,
    up: u64,
    left: Option<u64>,
) -> serde_json::Value {
    let share = Share::of(progress);
    let sources = PeerSource::ALL.map(|source| {
        let known = progress.known_by_source.get(source);
        let peers = progress.peers_by_source.get(source);
        (
            source.name().to_owned(),
            json!({"known": known, "peers": peers}),
        )
    });
    let sources: serde_json::Map<_, _> = sources.into_iter().collect();
    json!({
        "event": "progress",
        "action": "fetching",
        "bytes_done": share.bytes_done,
        "bytes_total": share.bytes_total,
        "bytes_per_s": down,
        "eta_s": left,
        "up_bytes_per_s": up,
        "downloaded": progress.downloaded,
        "uploaded": progress.uploaded,
        "wasted": progress.wasted,
        "hash_failures": progress.hash_failures,
        "peers": progress.peers,
        "seeds": progress.seeds,
        "connecting": progress.connecting,
        "candidates": progress.candidates,
        "sources": sources,
        "paused": progress.paused,
    })
}

/// What programs are told of a tracker. That it takes long is no failure.
fn tracker_line(tracker: &str, news: &News) -> serde_json::Value {
    let (event, reason) = match news {
        News::Recovered => ("tracker-recovered", None),
        News::Silent => ("tracker-waiting", None),
        News::Failed(reason) | News::GivenUp(reason) => ("tracker-failed", Some(reason)),
    };
    let mut line = json!({"event": event, "tracker": tracker});
    if let Some(reason) = reason {
        line["reason"] = reason.as_str().into();
    }
    line
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(MESSAGE);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::new();
        assert_eq!(
            rate.sample(at(0), 1000),
            0,
            "what was there before counts for nothing"
        );
        assert_eq!(rate.sample(at(1), 1100), 100);
        assert_eq!(rate.sample(at(2), 1300), 150);
        for second in 3..20 {
            rate.sample(at(second), 1300);
        }
        assert_eq!(rate.sample(at(20), 1300), 0);
        assert!(rate.samples.len() < 10);
    }

    #[test]
    fn the_bar_gives_way_to_what_is_said() {
        let share = Share {
            bytes_done: 3 << 20,
            bytes_total: 42 << 20,
        };
        let message = "1.20 MB/s, 33 seconds left, 12 peers, 3 seeds";
        for columns in 75..200 {
            let line = bar_line(share, message, columns);
            assert!(line.chars().count() <= columns, "{columns}: {line}");
            assert!(line.contains(message), "{columns}: {line}");
        }
        let narrow = bar_line(share, message, 30);
        assert!(narrow.starts_with("  7 % of"), "{narrow}");
        assert!(!narrow.contains('['), "{narrow}");
        let wide = bar_line(share, message, 120);
        assert!(wide.ends_with(']') && wide.contains("[==>"), "{wide}");
        let whole = Share {
            bytes_done: 42 << 20,
            ..share
        };
        let whole = bar_line(whole, "", 120);
        assert!(whole.contains(&"=".repeat(CELLS_MAX)), "{whole}");
    }

    #[test]
    fn what_is_complete_has_the_torrent_s_size_whatever_was_received() {
        let mib = |count: u64| count << 20;
        let mut progress = FetchProgress {
            bytes: mib(22),
            bytes_stored: mib(22),
            downloaded: mib(26),
            wasted: mib(4),
            ..FetchProgress::default()
        };
        let line = |files, progress: &FetchProgress| {
            complete_line(Path::new("/a/b"), files, progress, Duration::from_secs(2))
        };
        assert_eq!(
            line((3, 3), &progress),
            "complete: /a/b, 22.00 MiB; 26.00 MiB received in 2.0 s, 13.63 MB/s, \
             4.00 MiB of it wasted"
        );
        progress.bytes_stored = mib(8);
        (progress.downloaded, progress.wasted) = (0, 0);
        let some = line((2, 3), &progress);
        assert_eq!(some, "complete: /a/b, 8.00 MiB in 2 of 3 files");
    }

    #[test]
    fn a_tracker_that_takes_long_is_no_failure() {
        let event = |news| tracker_line("http://a/…", &news)["event"].clone();
        assert_eq!(event(News::Silent), "tracker-waiting");
        assert_eq!(event(News::Failed("no".to_owned())), "tracker-failed");
        assert_eq!(event(News::GivenUp("no".to_owned())), "tracker-failed");
        assert_eq!(event(News::Recovered), "tracker-recovered");
    }

    #[test]
    fn a_hundred_percent_is_all() {
        let percent = |bytes_done, bytes_total| {
            Share {
                bytes_done,
                bytes_total,
            }
            .percent()
        };
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
    }
}
