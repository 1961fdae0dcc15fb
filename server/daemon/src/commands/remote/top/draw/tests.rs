//! The screen as text.

use super::super::pieces::PieceMap;
use super::super::screen::tests::{all, hash, screen};
use super::super::screen::{Event, Part};
use super::*;
use control::api::types::{
    FileStatus, LastError, LogLine, PeerStatus, ServerStatus, StatusCounts, TorrentDetails,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

fn look() -> Look {
    Look {
        is_coloured: false,
        is_ascii: false,
        place: "/run/api.sock".to_owned(),
    }
}

/// What the terminal shows, a line each, without blanks at their ends.
fn shown_by(screen: &Screen, look: &Look) -> Vec<String> {
    let (columns, rows) = screen.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, screen, look)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| {
        let cells = (0..columns).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..rows).map(line).collect()
}

fn shown(screen: &Screen) -> Vec<String> {
    shown_by(screen, &look())
}

fn typed(screen: &mut Screen, keys: &str) {
    for char in keys.chars() {
        let code = match char {
            '\n' => KeyCode::Enter,
            char => KeyCode::Char(char),
        };
        screen.handle(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
}

fn server() -> ServerStatus {
    ServerStatus {
        version: "0.1.0".into(),
        commit: "abc".into(),
        uptime_s: 3700,
        peer_port: 6890,
        revision: 1,
        torrents: 3,
        by_status: StatusCounts {
            downloading: 3,
            ..StatusCounts::default()
        },
        total_bytes: 1,
        uploaded_bytes: 1,
        downloaded_bytes: 1,
        uploaded_session_bytes: 0,
        downloaded_session_bytes: 0,
        upload_rate: 0,
        download_rate: 3 << 20,
    }
}

#[test]
fn the_list_fits_eighty_columns_and_twenty_four_rows() {
    let mut screen = screen(3);
    screen.handle(Event::Server(Box::new(server())));
    typed(&mut screen, "j ");
    let lines = shown(&screen);
    assert_eq!(
        lines[..7],
        [
            "seedring 0.1.0 at /run/api.sock, up 1h01m",
            "down 3.00 MiB/s                    █  up      0 B/s",
            "1 marked, 3 torrents: 3 downloading                                     by added",
            "  name                  size   done  status              down          up  ratio",
            "  torrent 2         10.0 GiB  50.0%  downloading   10.0 MiB/s               0.10",
            "* torrent 1         10.0 GiB  50.0%  downloading   10.0 MiB/s               0.10",
            "  torrent 0         10.0 GiB  50.0%  downloading   10.0 MiB/s               0.10",
        ]
    );
    assert_eq!(lines.len(), 24);
    assert!(lines[7..23].iter().all(String::is_empty), "{lines:?}");
    assert!(lines[23].starts_with("? help  Enter look"));
}

#[test]
fn every_size_is_drawn_without_a_panic() {
    let mut screen = screen(300);
    screen.handle(Event::Server(Box::new(server())));
    for keys in ["G", "/tor", "\n", "?", "q", "d", "n", "\n", "5", "a"] {
        typed(&mut screen, keys);
        for (columns, rows) in [(1, 1), (3, 2), (20, 5), (40, 7), (80, 24), (300, 100)] {
            screen.handle(Event::Size(columns, rows));
            let lines = shown(&screen);
            assert_eq!(lines.len(), usize::from(rows));
        }
    }
}

#[test]
fn the_selected_row_is_reversed_with_and_without_colours() {
    let mut screen = screen(3);
    typed(&mut screen, "j");
    for is_coloured in [false, true] {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let look = Look {
            is_coloured,
            ..look()
        };
        terminal.draw(|frame| draw(frame, &screen, &look)).unwrap();
        let buffer = terminal.backend().buffer();
        let is_reversed = |row: u16| buffer[(79, row)].modifier.contains(Modifier::REVERSED);
        let reversed: Vec<u16> = (0..24).filter(|row| is_reversed(*row)).collect();
        assert_eq!(reversed, [5]);
        let has_colour = buffer.content.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(has_colour, is_coloured);
    }
}

#[test]
fn a_server_that_does_not_answer_is_on_the_first_line() {
    let mut screen = screen(3);
    screen.handle(Event::Lost("nobody answers\x1b[2J".into()));
    let lines = shown(&screen);
    assert_eq!(
        lines[0],
        "not connected, retrying: nobody answers\\u{1b}[2J"
    );
    assert!(lines[4].contains("torrent 2"), "what is known stays");
    let mut new = Screen::new(80, 24);
    assert_eq!(shown(&new)[4], "  waiting for the server");
    new.handle(Event::Changes(Box::new(all(0))));
    assert_eq!(shown(&new)[4], "  no torrents: a adds one");
}

#[test]
fn prompts_questions_and_messages_have_the_line_before_the_last() {
    let mut screen = screen(12);
    typed(&mut screen, "/torrent 11");
    let lines = shown(&screen);
    assert_eq!(lines[22], "Name has: torrent 11");
    assert!(
        lines[2].starts_with("1 of 12 torrents: \"torrent 11\""),
        "{}",
        lines[2]
    );
    typed(&mut screen, "\nD");
    let lines = shown(&screen);
    assert_eq!(lines[22], "Remove WITH DATA torrent 11? y/n");
    assert_eq!(lines[23], "y yes  n no");
    typed(&mut screen, "n");
    screen.handle(Event::Failed("no: it is busy".into()));
    assert_eq!(shown(&screen)[22], "no: it is busy");
    typed(&mut screen, "/zzzz");
    assert_eq!(shown(&screen)[4], "  none of them passes: x shows all");
    typed(&mut screen, "\nxa");
    typed(&mut screen, &"0123456789".repeat(10));
    let line = &shown(&screen)[22];
    assert!(
        line.starts_with("Add (magnet") && line.ends_with("789"),
        "{line}"
    );
    assert!(width(line) < 80);
}

#[test]
fn the_tabs_of_a_torrent_show_what_is_known() {
    let mut screen = screen(2);
    typed(&mut screen, "\n");
    assert_eq!(shown(&screen)[4], "waiting for the server");
    let torrent = screen.copy.torrent(&hash(1)).unwrap().clone();
    let details = TorrentDetails {
        torrent,
        comment: None,
        created_by: None,
        created_at_s: None,
        magnet: "magnet:?x".into(),
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        queue_position: None,
        sources: Vec::new(),
    };
    let learn = |screen: &mut Screen, part| {
        screen.handle(Event::Detail(hash(1), part));
    };
    learn(&mut screen, Part::Overview(Box::new(details)));
    let lines = shown(&screen);
    assert!(lines[2].starts_with("torrent 1  ") && lines[2].ends_with("downloading 50.0%"));
    assert!(
        lines[3].starts_with("[1 Overview]  2 Files   3 Peers "),
        "{}",
        lines[3]
    );
    assert!(
        lines[4].starts_with("Down:  ") && lines[4].ends_with('█'),
        "{}",
        lines[4]
    );
    assert_eq!(lines[6], "Name:           torrent 1");
    let file = FileStatus {
        index: 0,
        path: "a/b.iso".into(),
        total_bytes: 2048,
        verified_bytes: 2048,
        priority: 4,
    };
    let line = |number, level, text: &str| LogLine {
        number,
        at_ms: 1_700_000_000_123,
        level,
        target: "io".into(),
        text: text.into(),
    };
    let logged = vec![
        line(1, LogLevel::Info, "older"),
        line(2, LogLevel::Warn, "newer"),
    ];
    learn(&mut screen, Part::Log(logged));
    typed(&mut screen, "6");
    let lines = shown(&screen);
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    assert!(at("The server's log") < at("warn   newer"));
    assert!(at("warn   newer") < at("info   older"));
    learn(&mut screen, Part::Files(vec![file; 40]));
    typed(&mut screen, "2");
    assert_eq!(shown(&screen)[5], "0  a/b.iso  2.00 KiB  100%  usual");
    typed(&mut screen, "GG");
    assert_eq!(screen.detail.as_ref().unwrap().scroll, 41 - 18);
    assert_eq!(shown(&screen)[21], "0  a/b.iso  2.00 KiB  100%  usual");
}

#[test]
fn peers_pieces_and_the_log_of_a_torrent_are_shown() {
    let mut screen = screen(2);
    typed(&mut screen, "\n");
    let learn = |screen: &mut Screen, part| {
        screen.handle(Event::Detail(hash(1), part));
    };
    learn(&mut screen, Part::Peers(Vec::<PeerStatus>::new()));
    typed(&mut screen, "3");
    assert_eq!(shown(&screen)[4], "no peer is connected");
    let map = PieceMap {
        count: 16,
        bits: vec![0xff, 0],
    };
    learn(&mut screen, Part::Pieces(map));
    typed(&mut screen, "5");
    let lines = shown(&screen);
    assert_eq!(lines[4], "8 of 16 pieces 50.0%");
    assert_eq!(lines[6], "████████········");
    let ascii = Look {
        is_ascii: true,
        ..look()
    };
    let lines = shown_by(&screen, &ascii);
    assert_eq!(lines[6], "########........");
    assert!(lines.concat().is_ascii());
    let mut changes = all(2);
    changes
        .changed
        .retain(|torrent| torrent.info_hash == hash(1));
    changes.changed[0].last_error = Some(LastError {
        at_s: 0,
        text: "the disk is full".into(),
    });
    changes.begins_anew = false;
    screen.handle(Event::Changes(Box::new(changes)));
    screen.handle(Event::Done("paused 1 torrent".into()));
    typed(&mut screen, "6");
    let text = shown(&screen).join("\n");
    assert!(
        text.contains("the disk is full") && text.contains("\n  paused 1 torrent"),
        "{text}"
    );
}

#[test]
fn help_fits_twenty_four_rows() {
    let mut screen = screen(0);
    typed(&mut screen, "?");
    let lines = shown(&screen);
    assert_eq!(lines[0], "seedring top: what the keys do");
    let last = super::super::keys::HELP.len();
    assert!(lines[last].contains("leave") && last < 24, "{lines:?}");
    assert!(
        super::super::keys::HELP
            .iter()
            .all(|(key, what)| key.len() < 12 && what.len() < 66)
    );
}
