//! Draws the screen: lines of text with styles, every line within the terminal's width.

use super::screen::{Connection, Detail, FOOT_LINES, HEAD_LINES, Overlay, Prompt, Screen, Tab};
use crate::commands::remote::columns::{self, ListColumn, status_word};
use crate::commands::remote::content::file_table;
use crate::commands::remote::inspect::{detail_lines as overview_lines, peer_table};
use crate::commands::remote::server::by_status;
use crate::commands::remote::table::{Column, Layout, layout};
use crate::commands::remote::text::{bytes, cut, duration, fitted, name, percent, width};
use crate::commands::remote::trackers::tracker_table;
use control::api::types::{LogLevel, Status, Torrent};
use indicatif::HumanCount;
use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

/// The columns of the list.
const LIST: &str = "name,size,done,status,down,up,ratio,eta,peers";
/// The widest that the figures are, so that columns stay where they are.
const WIDEST: [&str; 9] = [
    "",
    "1023 MiB",
    "99.9%",
    "checking 99%",
    "1023 KiB/s",
    "1023 KiB/s",
    "99.99",
    "23h59m",
    "99999",
];
/// Columns of what precedes a row, for its mark.
const MARK: usize = 2;
/// Columns of the bars of a rate above the list.
const BARS: usize = 20;

/// How things look on this terminal.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whether colours are used; without them there are bold and reversed text.
    pub is_coloured: bool,
    /// Whether there is nothing but ASCII.
    pub is_ascii: bool,
    /// Where the server is.
    pub place: String,
}

impl Look {
    fn style(&self, colour: Color) -> Style {
        match self.is_coloured {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn failure(&self) -> Style {
        self.style(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn of_status(&self, status: Status) -> Style {
        match status {
            Status::Downloading | Status::Metadata => self.style(Color::Cyan),
            Status::Seeding => self.style(Color::Green),
            Status::Checking | Status::Moving => self.style(Color::Yellow),
            Status::Failed | Status::Offline => self.failure(),
            Status::Paused | Status::Queued => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

/// A line and how it looks.
type Styled = (String, Style);

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, look: &Look) {
    let area = frame.area();
    let (columns, rows) = (usize::from(area.width), usize::from(area.height));
    let all = lines(screen, look, columns, rows);
    for (row, (text, style)) in (0..area.height).zip(all) {
        let text = match look.is_ascii {
            true => text.chars().map(in_ascii).collect(),
            false => text,
        };
        let line = Line::styled(text, style);
        let place = ratatui::layout::Rect {
            y: area.y + row,
            height: 1,
            ..area
        };
        frame.render_widget(line, place);
    }
    if let (Some(Overlay::Prompt(prompt, text)), Some(row)) = (&screen.overlay, rows.checked_sub(2))
    {
        let at = width(&prompt_line(*prompt, text, columns)).min(columns.saturating_sub(1));
        let at = (
            u16::try_from(at).unwrap_or(0),
            u16::try_from(row).unwrap_or(0),
        );
        frame.set_cursor_position((area.x + at.0, area.y + at.1));
    }
}

fn in_ascii(char: char) -> char {
    match char {
        char if char.is_ascii() => char,
        '…' => '~',
        _ => '?',
    }
}

/// All lines of the screen.
fn lines(screen: &Screen, look: &Look, columns: usize, rows: usize) -> Vec<Styled> {
    if screen.overlay == Some(Overlay::Help) {
        return help(columns);
    }
    let mut lines = vec![title(screen, look, columns), rates(screen, look, columns)];
    match &screen.detail {
        Some(detail) => lines.extend(detail_head(screen, look, detail, columns)),
        None => lines.push(view(screen, columns)),
    }
    let body = rows.saturating_sub(HEAD_LINES + FOOT_LINES);
    match &screen.detail {
        Some(detail) => {
            let all = body_lines(screen, look, detail, columns, body);
            let shown = all.into_iter().skip(detail.scroll).take(body);
            lines.extend(shown.map(|line| (cut(&line, columns), Style::new())));
        }
        None => lines.extend(list(screen, look, columns, body)),
    }
    lines.resize(HEAD_LINES + body, (String::new(), Style::new()));
    lines.push(message(screen, look, columns));
    lines.push((
        cut(keys(screen), columns),
        Style::new().add_modifier(Modifier::DIM),
    ));
    lines
}

/// Which server, and whether it answers.
fn title(screen: &Screen, look: &Look, columns: usize) -> Styled {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let text = match (&screen.connection, &screen.server) {
        (Connection::Lost(why), _) => {
            let text = format!("not connected, retrying: {}", name(why));
            return (fitted(&text, columns, false), look.failure());
        }
        (_, Some(server)) => format!(
            "seedring {} at {}, up {}",
            server.version,
            look.place,
            duration(server.uptime_s)
        ),
        (_, None) => format!("seedring at {}", look.place),
    };
    (cut(&text, columns), bold)
}

/// What goes in and out.
fn rates(screen: &Screen, look: &Look, columns: usize) -> Styled {
    let Some(server) = &screen.server else {
        return (String::new(), Style::new());
    };
    let bars = |history: &super::history::History| history.bars(BARS, look.is_ascii);
    let text = format!(
        "down {:>10} {}  up {:>10} {}",
        format!("{}/s", bytes(server.download_rate)),
        bars(&screen.down),
        format!("{}/s", bytes(server.upload_rate)),
        bars(&screen.up),
    );
    (cut(&text, columns), Style::new())
}

/// How many torrents are shown and why, and in which order.
fn view(screen: &Screen, columns: usize) -> Styled {
    let (shown, all) = (screen.order.len() as u64, screen.copy.len() as u64);
    let mut text = match screen.view.is_filtered() {
        true => format!(
            "{} of {} torrents: {}",
            HumanCount(shown),
            HumanCount(all),
            screen.view.words()
        ),
        false => crate::progress::counted(all, "torrent") + &counts(screen),
    };
    if screen.copy.is_cut {
        text += " (the server has more than are kept here)";
    }
    if !screen.marked.is_empty() {
        let marked = HumanCount(screen.marked.len() as u64);
        text = format!("{marked} marked, {text}");
    }
    let reversed = match screen.view.is_reversed {
        true => ", reversed",
        false => "",
    };
    let sort = format!("by {}{reversed}", screen.view.sort.word());
    let room = columns.saturating_sub(width(&sort) + 2);
    let text = fitted(&text, room, false) + "  " + &sort;
    (cut(&text, columns), Style::new())
}

/// How many torrents do what, as the server says.
fn counts(screen: &Screen) -> String {
    let Some(server) = &screen.server else {
        return String::new();
    };
    let counts = by_status(&server.by_status);
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(status, count)| format!("{} {}", HumanCount(*count as u64), status_word(*status)))
        .collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!(": {}", counts.join(", ")),
    }
}

/// The titles of the list and its rows.
fn list(screen: &Screen, look: &Look, columns: usize, rows: usize) -> Vec<Styled> {
    let chosen = columns::parse(LIST).unwrap_or_default();
    let looks: Vec<Column> = chosen.iter().map(|one| one.column).collect();
    let layout = list_layout(&looks, columns.saturating_sub(MARK));
    let head = fitted(&format!("  {}", layout.head(&looks)), columns, false);
    let head_style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    let mut lines = vec![(cut(&head, columns), head_style)];
    let visible = screen.order.iter().skip(screen.first).take(rows);
    for hash in visible {
        let Some(torrent) = screen.copy.torrent(hash) else {
            continue;
        };
        let mark = if screen.marked.contains(hash) {
            "* "
        } else {
            "  "
        };
        let cells = cells(&chosen, torrent);
        let line = format!("{mark}{}", layout.line(&looks, &cells));
        let mut style = look.of_status(torrent.status);
        if screen.selected.as_ref() == Some(hash) {
            style = style
                .remove_modifier(Modifier::DIM)
                .add_modifier(Modifier::REVERSED);
        }
        lines.push((fitted(&line, columns, false), style));
    }
    if screen.order.is_empty() && rows > 0 {
        let text = match (&screen.connection, screen.copy.len()) {
            (Connection::Begun, _) => "  waiting for the server",
            (_, 0) => "  no torrents: a adds one",
            _ => "  none of them passes: x shows all",
        };
        lines.push((cut(text, columns), Style::new()));
    }
    lines
}

fn cells(chosen: &[ListColumn], torrent: &Torrent) -> Vec<String> {
    chosen.iter().map(|one| one.cell(torrent)).collect()
}

/// The same for whatever the rows are.
fn list_layout(looks: &[Column], room: usize) -> Layout {
    let mut widest: Vec<String> = WIDEST.iter().map(|&text| text.to_owned()).collect();
    // The name has all the room that is left.
    widest[0] = "x".repeat(room);
    layout(looks, &[widest], Some(room))
}

/// The torrent that is looked at, and the tabs.
fn detail_head(screen: &Screen, look: &Look, detail: &Detail, columns: usize) -> [Styled; 2] {
    let name_line = match screen.copy.torrent(&detail.hash) {
        None => (String::new(), Style::new()),
        Some(torrent) => {
            let done = percent(torrent.verified_bytes, torrent.total_bytes);
            let state = format!("{} {done}", status_word(torrent.status));
            let room = columns.saturating_sub(width(&state) + 2);
            let text = format!("{}  {state}", fitted(&name(&torrent.name), room, false));
            (cut(&text, columns), look.of_status(torrent.status))
        }
    };
    let tab = |(number, tab): (usize, &Tab)| match *tab == detail.tab {
        true => format!("[{} {}]", number, tab.title()),
        false => format!(" {} {} ", number, tab.title()),
    };
    let tabs: Vec<String> = (1..).zip(&Tab::ALL).map(tab).collect();
    let style = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    [name_line, (fitted(&tabs.join(" "), columns, false), style)]
}

/// The lines of the tab that is open, however many there are.
pub fn detail_lines(screen: &Screen) -> Vec<String> {
    let (columns, rows) = (usize::from(screen.size.0), screen.list_rows());
    let look = Look::default();
    let detail = screen.detail.as_ref();
    detail.map_or_else(Vec::new, |detail| {
        body_lines(screen, &look, detail, columns, rows)
    })
}

fn body_lines(
    screen: &Screen,
    look: &Look,
    detail: &Detail,
    columns: usize,
    rows: usize,
) -> Vec<String> {
    let room = Some(columns);
    let text = match detail.tab {
        Tab::Overview => detail.overview.as_ref().map(|overview| {
            let room = columns.saturating_sub(16).min(60);
            let (down, up) = (&detail.down, &detail.up);
            let bars = format!(
                "Down:           {}\nUp:             {}\n",
                down.bars(room, look.is_ascii),
                up.bars(room, look.is_ascii)
            );
            bars + &overview_lines(overview)
        }),
        Tab::Files => detail.files.as_ref().map(|files| file_table(files, room)),
        Tab::Peers => detail.peers.as_ref().map(|peers| match peers.is_empty() {
            true => "no peer is connected\n".to_owned(),
            false => peer_table(peers, room),
        }),
        Tab::Trackers => detail
            .trackers
            .as_ref()
            .map(|trackers| match trackers.is_empty() {
                true => "it has no trackers\n".to_owned(),
                false => tracker_table(trackers, room),
            }),
        Tab::Pieces => detail.pieces.as_ref().map(|map| {
            let (there, all) = (map.there(), u64::from(map.count));
            let lines = map.lines(columns, rows.saturating_sub(2), look.is_ascii);
            let (there_shown, all_shown) = (HumanCount(there), HumanCount(all));
            let percent = percent(there, all);
            format!(
                "{there_shown} of {all_shown} pieces {percent}\n\n{}\n",
                lines.join("\n")
            )
        }),
        Tab::Log => Some(log(screen, detail)),
    };
    let text = text.unwrap_or_else(|| "waiting for the server".to_owned());
    text.lines().map(str::to_owned).collect()
}

/// What was said here, of which so much is shown above the server's log.
const SAID_SHOWN_MAX: usize = 5;

/// The torrent's last error, what was said here, and what the server has logged; the newest first.
fn log(screen: &Screen, detail: &Detail) -> String {
    let torrent = screen.copy.torrent(&detail.hash);
    let error = torrent.and_then(|torrent| torrent.last_error.as_ref());
    let mut text = match error {
        Some(error) => {
            let when = crate::commands::remote::text::moment(error.at_s);
            format!(
                "Last error of this torrent, {when}:\n  {}\n",
                name(&error.text)
            )
        }
        None => "This torrent has had no error.\n".to_owned(),
    };
    if !screen.log.is_empty() {
        text += "\nSaid here, the newest first:\n";
    }
    for line in screen.log.iter().rev().take(SAID_SHOWN_MAX) {
        text += &format!("  {}\n", name(line));
    }
    text += "\nThe server's log, the newest first:\n";
    for line in screen.server_log.iter().rev() {
        let when = crate::commands::remote::text::moment(line.at_ms / 1000);
        let level = match line.level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn ",
            LogLevel::Info => "info ",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        text += &format!("  {when}  {level}  {}\n", name(&line.text));
    }
    text
}

/// What is asked or said.
fn message(screen: &Screen, look: &Look, columns: usize) -> Styled {
    match (&screen.message, &screen.overlay) {
        (_, Some(Overlay::Confirm(question, _))) => {
            let style = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
            (cut(question, columns), style)
        }
        (None, Some(Overlay::Prompt(prompt, text))) => {
            let style = Style::new().add_modifier(Modifier::BOLD);
            (prompt_line(*prompt, text, columns), style)
        }
        (Some((text, true)), _) => (cut(&name(text), columns), look.failure()),
        (Some((text, false)), _) => (cut(&name(text), columns), Style::new()),
        (None, _) => (String::new(), Style::new()),
    }
}

/// What is asked for, and the end of what was typed.
fn prompt_line(prompt: Prompt, text: &str, columns: usize) -> String {
    let question = match prompt {
        Prompt::Add => "Add (magnet link, URL, .torrent file or path): ",
        Prompt::Text => "Name has: ",
        Prompt::Label => "Label: ",
        Prompt::Limits => "Up and down, as 2MB/s none, or default: ",
        Prompt::ServerLimits => "Server, up and down, as 10Mbit/s none: ",
    };
    let text = name(text);
    let room = columns.saturating_sub(width(question) + 1);
    let mut from = text.char_indices().map(|(at, _)| at);
    let mut tail = text.as_str();
    while width(tail) > room {
        let Some(at) = from.next() else { break };
        tail = &text[at..];
    }
    cut(&format!("{question}{tail}"), columns)
}

/// What the keys do, in short.
fn keys(screen: &Screen) -> &'static str {
    match (&screen.overlay, &screen.detail) {
        (Some(Overlay::Prompt(..)), _) => "Enter takes it  Esc does not",
        (Some(Overlay::Confirm(..)), _) => "y yes  n no",
        (_, Some(_)) => "Esc back  Tab next  p pause  r resume  v verify  d remove  ? help  q quit",
        _ => "? help  Enter look  / find  f status  s sort  a add  p pause  r resume  q quit",
    }
}

fn help(columns: usize) -> Vec<Styled> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![("seedring top: what the keys do".to_owned(), bold)];
    let entries = super::keys::HELP.iter();
    lines.extend(entries.map(|(key, what)| {
        let line = format!("  {key:<12}{what}");
        (cut(line.trim_end(), columns), Style::new())
    }));
    lines
}

#[cfg(test)]
mod tests;
