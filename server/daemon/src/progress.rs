//! What a long command tells its user: a bar on a terminal, a line now and then elsewhere, JSON
//! lines for programs. Also where results go: a reader that has closed its end is no error.

use control::hashing::Progress;
use indicatif::{
    BinaryBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle,
};
use proto::metainfo::Metainfo;
use proto::text::printable;
use serde::Serialize;
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// How often a JSON line is printed.
const JSON_PERIOD: Duration = Duration::from_secs(1);

/// The longest file name beside a bar, in characters.
const FILE_CHARS_MAX: usize = 48;

/// The longest path in a message, in characters.
const PATH_CHARS_MAX: usize = 400;

/// Reports the progress of hashing.
pub struct Reporter {
    /// What is going on, such as `hashing`.
    action: &'static str,
    form: Form,
    started: Instant,
    /// When the last line was printed.
    printed: Cell<Option<Instant>>,
}

enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
}

#[derive(Serialize)]
struct ProgressLine<'a> {
    event: &'static str,
    action: &'static str,
    bytes_done: u64,
    bytes_total: u64,
    /// The mean since the start.
    bytes_per_s: u64,
    /// Seconds to the end if it goes on like that; `null` before anything is done.
    eta_s: Option<u64>,
    file: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize)]
struct WalkLine {
    event: &'static str,
    action: &'static str,
    files: u64,
}

impl Reporter {
    /// A reporter of `action`: JSON lines on stdout if `json`, else a bar or lines on stderr.
    pub fn new(action: &'static str, json: bool) -> Reporter {
        let form = if json {
            Form::Json
        } else if std::io::stderr().is_terminal() {
            Form::Bar(bar(action))
        } else {
            Form::Lines
        };
        Reporter {
            action,
            form,
            started: Instant::now(),
            printed: Cell::new(None),
        }
    }

    /// Tells that a directory is being walked and has had this many files.
    pub fn walking(&mut self, files: u64) {
        match &self.form {
            Form::Bar(bar) => bar.set_message(format!("looking: {}", counted(files, "file"))),
            Form::Lines if self.is_due(LINE_PERIOD) => {
                eprintln!("looking: {} files so far", HumanCount(files));
            }
            Form::Json if self.is_due(JSON_PERIOD) => {
                print_json(&WalkLine {
                    event: "progress",
                    action: "walking",
                    files,
                });
            }
            Form::Lines | Form::Json => {}
        }
    }

    /// Tells how far hashing has come.
    pub fn hashing(&mut self, progress: &Progress<'_>) {
        let &Progress {
            bytes_done,
            bytes_total,
            file,
        } = progress;
        match &self.form {
            Form::Bar(bar) => {
                bar.set_length(bytes_total);
                bar.set_position(bytes_done);
                bar.set_message(file.map(short_name).unwrap_or_default());
            }
            Form::Lines if self.is_due(LINE_PERIOD) => {
                let percent = bytes_done * 100 / bytes_total.max(1);
                let pace = Pace::of(bytes_done, bytes_total, self.started.elapsed());
                let left = pace.left.map_or_else(String::new, |left| {
                    format!(", {} left", HumanDuration(left))
                });
                eprintln!(
                    "{}: {percent} % of {}, {}/s{left}",
                    self.action,
                    BinaryBytes(bytes_total),
                    BinaryBytes(pace.bytes_per_s),
                );
            }
            Form::Json if bytes_done == bytes_total || self.is_due(JSON_PERIOD) => {
                let pace = Pace::of(bytes_done, bytes_total, self.started.elapsed());
                print_json(&ProgressLine {
                    event: "progress",
                    action: self.action,
                    bytes_done,
                    bytes_total,
                    bytes_per_s: pace.bytes_per_s,
                    eta_s: pace.left.map(|left| left.as_secs()),
                    file: file.map(Path::to_string_lossy),
                });
            }
            Form::Lines | Form::Json => {}
        }
    }

    /// Takes the bar away; what follows is the result.
    pub fn finish(self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    /// Whether the last line is long enough ago; then this is the moment of the next one.
    fn is_due(&self, period: Duration) -> bool {
        // The first line, too, comes after a period: short work prints none.
        let last = self.printed.get().unwrap_or(self.started);
        let due = last.elapsed() >= period;
        if due {
            self.printed.set(Some(Instant::now()));
        }
        due
    }
}

/// Reports how many things of a number are done.
pub struct Counter {
    reporter: Reporter,
    noun: &'static str,
    total: u64,
}

#[derive(Serialize)]
struct CountLine {
    event: &'static str,
    action: &'static str,
    done: u64,
    total: u64,
}

impl Counter {
    /// A counter of `action`, of so many things that are called `noun`.
    pub fn new(action: &'static str, noun: &'static str, total: u64, json: bool) -> Counter {
        let reporter = Reporter::new(action, json);
        if let Form::Bar(bar) = &reporter.form {
            let template = "{prefix} {percent:>3} % [{bar:30}] {human_pos}/{human_len} {msg} {eta}";
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_message(noun);
            bar.set_length(total);
        }
        Counter {
            reporter,
            noun,
            total,
        }
    }

    /// Tells how many are done.
    pub fn at(&mut self, done: u64) {
        let (action, noun, total) = (self.reporter.action, self.noun, self.total);
        match &self.reporter.form {
            Form::Bar(bar) => bar.set_position(done),
            Form::Lines if self.reporter.is_due(LINE_PERIOD) => {
                eprintln!(
                    "{action}: {} of {} {noun}",
                    HumanCount(done),
                    HumanCount(total)
                );
            }
            Form::Json if self.reporter.is_due(JSON_PERIOD) => print_json(&CountLine {
                event: "progress",
                action,
                done,
                total,
            }),
            Form::Lines | Form::Json => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.reporter.finish();
    }
}

/// How fast work goes, and how long it will take.
struct Pace {
    bytes_per_s: u64,
    /// Whole seconds, rounded up; `None` before anything is done.
    left: Option<Duration>,
}

impl Pace {
    /// Of work that has done so many bytes in `elapsed`.
    fn of(bytes_done: u64, bytes_total: u64, elapsed: Duration) -> Pace {
        let rate = bytes_done as f64 / elapsed.as_secs_f64().max(0.001);
        let left = bytes_total.saturating_sub(bytes_done) as f64 / rate;
        Pace {
            bytes_per_s: rate as u64,
            left: left
                .is_finite()
                .then(|| Duration::from_secs(left.ceil() as u64)),
        }
    }
}

fn bar(action: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = "{prefix} {percent:>3} % [{bar:30}] {binary_bytes}/{binary_total_bytes} \
                    {binary_bytes_per_sec} {eta} {wide_msg}";
    let style = ProgressStyle::with_template(template);
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar.set_prefix(action);
    bar
}

/// The end of a path, fit for one line.
fn short_name(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.as_bytes())
        .unwrap_or_default();
    printable(name, FILE_CHARS_MAX)
}

/// A path in full, fit for a terminal.
pub fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes(), PATH_CHARS_MAX)
}

/// A number of things in words: `1 file`, `2,000 files`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(count))
}

/// Things of one kind that are told one by one; a link may have tens of thousands that are wrong.
const TOLD_MAX: usize = 10;

/// What there is to say of each of many things: of the first of them, and how many more there are.
pub fn first_of<T: ToString>(all: &[T]) -> Vec<String> {
    let some = all.iter().take(TOLD_MAX);
    let mut told: Vec<String> = some.map(ToString::to_string).collect();
    if all.len() > TOLD_MAX {
        let more = HumanCount((all.len() - TOLD_MAX) as u64);
        told.push(format!("and {more} more"));
    }
    told
}

/// What there is to say of names that downloads of a torrent can not have, of which there may be many.
pub fn tell_respelled(metainfo: &Metainfo) -> Vec<String> {
    const NAME_CHARS_MAX: usize = 300;
    let mut names = metainfo.respelled();
    let mut told: Vec<String> = names
        .by_ref()
        .take(TOLD_MAX)
        .map(|(name, written)| {
            let name = printable(&name, NAME_CHARS_MAX);
            format!("written as \"{written}\" by who downloads it: \"{name}\"")
        })
        .collect();
    let more = names.count() as u64;
    if more > 0 {
        let more = counted(more, "more name");
        told.push(format!("{more} written otherwise by who downloads it"));
    }
    told
}

/// Whether something that was to be printed was lost, as on a full disk.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Prints `text` on stdout as it is. A reader that has gone (`| head`) is no error; any other failure is
/// told once, and [`output_lost`] says so at the end.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
        && !OUTPUT_LOST.swap(true, Ordering::Relaxed)
    {
        eprintln!("seedring: writing to stdout: {error}");
    }
}

/// Whether a command that did its work could not say so.
pub fn output_lost() -> bool {
    OUTPUT_LOST.load(Ordering::Relaxed)
}

/// Prints `value` on stdout as one line of JSON.
pub fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => print(&(line + "\n")),
        Err(error) => eprintln!("seedring: cannot write JSON: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_mean_and_the_rest_at_that_pace() {
        let pace = Pace::of(1 << 30, 4 << 30, Duration::from_secs(2));
        assert_eq!(pace.bytes_per_s, 1 << 29);
        assert_eq!(pace.left, Some(Duration::from_secs(6)));
        let pace = Pace::of(3, 10, Duration::from_secs(1));
        assert_eq!(pace.left, Some(Duration::from_secs(3)), "rounded up");
    }

    #[test]
    fn work_that_has_not_begun_or_is_done_has_no_odd_end() {
        assert_eq!(Pace::of(0, 10, Duration::from_secs(1)).left, None);
        assert_eq!(Pace::of(0, 10, Duration::ZERO).left, None);
        assert_eq!(Pace::of(0, 0, Duration::from_secs(1)).left, None);
        let done = Pace::of(10, 10, Duration::ZERO);
        assert_eq!(done.left, Some(Duration::ZERO));
        // More than the total: a file that grew while it was walked.
        assert_eq!(
            Pace::of(11, 10, Duration::from_secs(1)).left,
            Some(Duration::ZERO)
        );
        let slow = Pace::of(1, u64::MAX, Duration::from_secs(u64::MAX / 2));
        assert_eq!(slow.bytes_per_s, 0);
        assert!(slow.left.is_some());
    }
}
