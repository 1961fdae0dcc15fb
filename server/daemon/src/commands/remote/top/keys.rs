//! What keys do.

use super::copy::Sort;
use super::screen::{Command, Detail, Overlay, Prompt, Request, Screen, Tab};
use crate::commands::remote::limits::parse_rate;
use crate::commands::remote::select::status_after;
use crate::commands::remote::text::{cut, name};
use crate::progress::counted;
use control::api::types::BulkAction;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// The longest text that a prompt takes, in bytes: links with many trackers are long.
const PROMPT_BYTES_MAX: usize = 16 << 10;
/// The longest name in a question, in columns.
const NAME_COLUMNS_MAX: usize = 40;

/// What the help screen says.
pub const HELP: [(&str, &str); 21] = [
    ("Up Down j k", "move; PgUp PgDn Home End g G: further"),
    ("Enter", "look at the torrent; Esc goes back"),
    (
        "Tab 1-6",
        "in there: overview, files, peers, trackers, pieces, log",
    ),
    ("Space", "mark it, or not; * all that are shown, or none"),
    (
        "",
        "what follows is for those that are marked, else the one",
    ),
    ("", "under the cursor"),
    ("p", "pause"),
    ("r", "resume"),
    ("v", "verify: hash all data again"),
    ("n", "announce now"),
    ("m", "limit rates"),
    ("d", "remove; the data stay"),
    ("D", "remove with the data"),
    ("", ""),
    ("a", "add a magnet link, URL, .torrent file or path"),
    ("M", "limit rates of the whole server"),
    ("/", "only those with a text in their name"),
    ("f L x", "by status, by label; all again"),
    (
        "s S o",
        "sort by the next, by the one before; the other way round",
    ),
    ("?", "this; any key leaves it"),
    ("q Ctrl-C", "leave"),
];

impl Screen {
    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Command> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Some(Command::Quit);
        }
        self.message = None;
        match self.overlay.take() {
            Some(Overlay::Help) => None,
            Some(Overlay::Prompt(prompt, text)) => self.prompt_key(prompt, text, key),
            Some(Overlay::Confirm(question, request)) => match key.code {
                KeyCode::Char('y' | 'Y') => self.ask(request),
                KeyCode::Char('n' | 'N') | KeyCode::Esc => None,
                // Whatever else was pressed was meant for something else.
                _ => {
                    self.overlay = Some(Overlay::Confirm(question, request));
                    None
                }
            },
            None if is_control => None,
            None if self.detail.is_some() => self.detail_key(key.code),
            None => self.list_key(key.code),
        }
    }

    /// Text was pasted: a prompt takes it, nothing else does.
    pub fn paste(&mut self, text: &str) {
        if let Some(Overlay::Prompt(_, typed)) = &mut self.overlay {
            let fit = text.trim().chars().filter(|char| !char.is_control());
            let room = PROMPT_BYTES_MAX.saturating_sub(typed.len());
            let mut pasted: String = fit.collect();
            while pasted.len() > room {
                pasted.pop();
            }
            typed.push_str(&pasted);
        }
    }

    fn ask(&mut self, request: Request) -> Option<Command> {
        self.marked.clear();
        Some(Command::Ask(request))
    }

    fn list_key(&mut self, code: KeyCode) -> Option<Command> {
        let (place, page) = (self.place().unwrap_or(0), self.list_rows());
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.go_to(place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go_to(place + 1),
            KeyCode::PageUp => self.go_to(place.saturating_sub(page)),
            KeyCode::PageDown => self.go_to(place + page),
            KeyCode::Home | KeyCode::Char('g') => self.go_to(0),
            KeyCode::End | KeyCode::Char('G') => self.go_to(usize::MAX),
            KeyCode::Enter | KeyCode::Right => return self.open(),
            KeyCode::Char(' ') => {
                if let Some(hash) = self.selected.clone()
                    && !self.marked.remove(&hash)
                {
                    self.marked.insert(hash);
                }
                self.go_to(place + 1);
            }
            KeyCode::Char('*') => match self.marked.is_empty() {
                true => self.marked.extend(self.order.iter().cloned()),
                false => self.marked.clear(),
            },
            KeyCode::Esc if !self.marked.is_empty() => self.marked.clear(),
            KeyCode::Esc | KeyCode::Char('x') => {
                self.view.clear();
                self.reorder();
            }
            KeyCode::Char('f') => {
                self.view.status = status_after(self.view.status);
                self.reorder();
            }
            KeyCode::Char('s') => self.sort_by(self.view.sort.step(true)),
            KeyCode::Char('S') => self.sort_by(self.view.sort.step(false)),
            KeyCode::Char('o') => {
                self.view.is_reversed = !self.view.is_reversed;
                self.reorder();
            }
            KeyCode::Char('/') => self.prompt(Prompt::Text, self.view.text.clone()),
            KeyCode::Char('L') => {
                let label = self.view.label.clone().unwrap_or_default();
                self.prompt(Prompt::Label, label);
            }
            code => return self.common_key(code),
        }
        None
    }

    /// What means the same wherever one is.
    fn common_key(&mut self, code: KeyCode) -> Option<Command> {
        match code {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Char('?') => self.overlay = Some(Overlay::Help),
            KeyCode::Char('a') => self.prompt(Prompt::Add, String::new()),
            KeyCode::Char('M') => self.prompt(Prompt::ServerLimits, String::new()),
            KeyCode::Char('m') if !self.targets().is_empty() => {
                self.prompt(Prompt::Limits, String::new());
            }
            KeyCode::Char('p') => return self.act(BulkAction::Pause, false),
            KeyCode::Char('r') => return self.act(BulkAction::Resume, false),
            KeyCode::Char('n') => return self.act(BulkAction::Announce, false),
            KeyCode::Char('v') => return self.act(BulkAction::Recheck, false),
            KeyCode::Char('d') => return self.act(BulkAction::Remove, false),
            KeyCode::Char('D') => return self.act(BulkAction::Remove, true),
            _ => {}
        }
        None
    }

    fn detail_key(&mut self, code: KeyCode) -> Option<Command> {
        let page = self.list_rows();
        let detail = self.detail.as_mut()?;
        let tab = detail.tab;
        match code {
            KeyCode::Esc | KeyCode::Backspace => {
                self.detail = None;
                return Some(Command::Watch(None));
            }
            KeyCode::Tab | KeyCode::Right => return self.show(tab.step(true)),
            KeyCode::BackTab | KeyCode::Left => return self.show(tab.step(false)),
            KeyCode::Char(digit @ '1'..='6') => {
                let number = digit.to_digit(10).unwrap_or(1) as usize;
                return self.show(Tab::ALL[number - 1]);
            }
            KeyCode::Up | KeyCode::Char('k') => detail.scroll = detail.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => detail.scroll += 1,
            KeyCode::PageUp => detail.scroll = detail.scroll.saturating_sub(page),
            KeyCode::PageDown => detail.scroll += page,
            KeyCode::Home | KeyCode::Char('g') => detail.scroll = 0,
            KeyCode::End | KeyCode::Char('G') => detail.scroll = usize::MAX / 2,
            code => return self.common_key(code),
        }
        let lines = super::draw::detail_lines(self).len();
        if let Some(detail) = &mut self.detail {
            detail.scroll = detail.scroll.min(lines.saturating_sub(page));
        }
        None
    }

    fn open(&mut self) -> Option<Command> {
        let hash = self.selected.clone()?;
        self.detail = Some(Detail {
            hash: hash.clone(),
            ..Detail::default()
        });
        Some(Command::Watch(Some((hash, Tab::default()))))
    }

    fn show(&mut self, tab: Tab) -> Option<Command> {
        let detail = self.detail.as_mut()?;
        detail.tab = tab;
        detail.scroll = 0;
        Some(Command::Watch(Some((detail.hash.clone(), tab))))
    }

    fn sort_by(&mut self, sort: Sort) {
        self.view.sort = sort;
        self.view.is_reversed = false;
        self.reorder();
    }

    fn prompt(&mut self, prompt: Prompt, text: String) {
        self.overlay = Some(Overlay::Prompt(prompt, text));
    }

    /// Does something to the torrents that are meant: what costs much, and what is for several, is
    /// asked about first.
    fn act(&mut self, action: BulkAction, with_data: bool) -> Option<Command> {
        let torrents = self.targets();
        let question = match torrents.as_slice() {
            [] => return None,
            [one] => self.copy.torrent(one).map_or_else(
                || "the torrent".to_owned(),
                |torrent| cut(&name(&torrent.name), NAME_COLUMNS_MAX),
            ),
            several => counted(several.len() as u64, "torrent"),
        };
        let is_asked =
            torrents.len() > 1 || matches!(action, BulkAction::Remove | BulkAction::Recheck);
        let request = Request::Act {
            action,
            torrents,
            with_data,
        };
        if !is_asked {
            return self.ask(request);
        }
        let verb = match (action, with_data) {
            (BulkAction::Remove, true) => "Remove WITH DATA",
            (BulkAction::Remove, false) => "Remove",
            (BulkAction::Recheck, _) => "Hash all data of",
            (BulkAction::Pause, _) => "Pause",
            (BulkAction::Resume, _) => "Resume",
            (BulkAction::Announce, _) => "Announce",
            (BulkAction::Edit, _) => "Change",
        };
        self.overlay = Some(Overlay::Confirm(format!("{verb} {question}? y/n"), request));
        None
    }

    fn prompt_key(&mut self, prompt: Prompt, mut text: String, key: KeyEvent) -> Option<Command> {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return self.entered(prompt, text),
            KeyCode::Esc => {
                if prompt == Prompt::Text {
                    self.view.text.clear();
                    self.reorder();
                }
                return None;
            }
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char('u') if is_control => text.clear(),
            KeyCode::Char('w') if is_control => {
                let end = text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
                text.truncate(end);
            }
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char(char) if text.len() < PROMPT_BYTES_MAX => text.push(char),
            _ => {}
        }
        if prompt == Prompt::Text {
            self.view.text.clone_from(&text);
            self.reorder();
        }
        self.prompt(prompt, text);
        None
    }

    fn entered(&mut self, prompt: Prompt, text: String) -> Option<Command> {
        let trimmed = text.trim();
        match prompt {
            Prompt::Text => {}
            Prompt::Label => {
                self.view.label = (!trimmed.is_empty()).then(|| trimmed.to_owned());
                self.reorder();
            }
            Prompt::Add if trimmed.is_empty() => {}
            Prompt::Add => return Some(Command::Ask(Request::Add(trimmed.to_owned()))),
            Prompt::Limits | Prompt::ServerLimits if trimmed.is_empty() => {}
            Prompt::Limits | Prompt::ServerLimits => match rates(trimmed) {
                Ok((up, down)) if prompt == Prompt::Limits => {
                    let targets = self.targets();
                    return self.ask(Request::Limit(targets, up, down));
                }
                Ok((up, down)) => {
                    return Some(Command::Ask(Request::LimitServer(up, down)));
                }
                Err(why) => {
                    self.say(why, true);
                    self.prompt(prompt, text);
                }
            },
        }
        None
    }
}

/// Two limits, up and down.
fn rates(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [up, down] = words.as_slice() else {
        return Err("two rates are needed, up and down, such as: 2MB/s none".to_owned());
    };
    Ok((parse_rate(up)?.value(), parse_rate(down)?.value()))
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::{all, hash, screen};
    use super::super::screen::{Event, Part};
    use super::*;
    use control::api::types::Status;

    fn press(screen: &mut Screen, code: KeyCode) -> Option<Command> {
        screen.handle(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn control(screen: &mut Screen, char: char) -> Option<Command> {
        let key = KeyEvent::new(KeyCode::Char(char), KeyModifiers::CONTROL);
        screen.handle(Event::Key(key))
    }

    /// Presses keys one after another; gives what the last one brings.
    fn typed(screen: &mut Screen, keys: &str) -> Option<Command> {
        let keys = keys.chars().map(|char| match char {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            char => KeyCode::Char(char),
        });
        keys.map(|key| press(screen, key)).last().flatten()
    }

    #[test]
    fn keys_move_the_cursor_within_the_list() {
        let mut screen = screen(50);
        typed(&mut screen, "jjjk");
        assert_eq!(screen.place(), Some(2));
        press(&mut screen, KeyCode::PageDown);
        assert_eq!(screen.place(), Some(20));
        typed(&mut screen, "G");
        assert_eq!((screen.place(), screen.first), (Some(49), 32));
        press(&mut screen, KeyCode::Down);
        assert_eq!(screen.place(), Some(49));
        typed(&mut screen, "gk");
        assert_eq!((screen.place(), screen.first), (Some(0), 0));
        let mut empty = super::super::screen::tests::screen(0);
        assert_eq!(typed(&mut empty, "jkG \n*pdDmv"), None);
        assert!(empty.overlay.is_none());
    }

    #[test]
    fn what_is_quick_is_done_and_what_is_dear_is_asked_about() {
        let mut screen = screen(3);
        let act = |action, numbers: &[usize], with_data| {
            Some(Command::Ask(Request::Act {
                action,
                torrents: numbers.iter().map(|number| hash(*number)).collect(),
                with_data,
            }))
        };
        assert_eq!(typed(&mut screen, "p"), act(BulkAction::Pause, &[2], false));
        assert_eq!(
            typed(&mut screen, "r"),
            act(BulkAction::Resume, &[2], false)
        );
        assert_eq!(typed(&mut screen, "v"), None);
        assert_eq!(
            typed(&mut screen, "y"),
            act(BulkAction::Recheck, &[2], false)
        );
        assert_eq!(typed(&mut screen, "jd"), None);
        let Some(Overlay::Confirm(question, _)) = &screen.overlay else {
            panic!("it is not asked about");
        };
        assert_eq!(question, "Remove torrent 1? y/n");
        assert_eq!(typed(&mut screen, "q"), None, "neither yes nor no");
        assert_eq!(typed(&mut screen, "n"), None);
        assert_eq!(
            typed(&mut screen, "q"),
            Some(Command::Quit),
            "no is an answer"
        );
        typed(&mut screen, "D");
        assert_eq!(typed(&mut screen, "y"), act(BulkAction::Remove, &[1], true));
        typed(&mut screen, "*p");
        assert_eq!(
            typed(&mut screen, "y"),
            act(BulkAction::Pause, &[0, 1, 2], false)
        );
        assert!(screen.marked.is_empty(), "they are done with");
    }

    #[test]
    fn marks_are_set_and_taken_away() {
        let mut screen = screen(5);
        typed(&mut screen, "  ");
        assert_eq!(screen.targets(), [hash(3), hash(4)]);
        typed(&mut screen, "kk ");
        assert_eq!(screen.targets(), [hash(3)]);
        typed(&mut screen, "\x1b");
        assert_eq!(screen.targets(), [hash(3)], "the one under the cursor");
        assert!(screen.marked.is_empty());
    }

    #[test]
    fn a_text_filters_while_it_is_typed() {
        let mut screen = screen(30);
        typed(&mut screen, "/T 12");
        assert_eq!((screen.order.len(), screen.view.text.as_str()), (1, "T 12"));
        press(&mut screen, KeyCode::Backspace);
        assert_eq!(screen.order.len(), 11);
        typed(&mut screen, "\n");
        assert!(screen.overlay.is_none() && screen.view.is_filtered());
        typed(&mut screen, "x");
        assert_eq!(screen.order.len(), 30);
        typed(&mut screen, "/zzz\x1b");
        assert_eq!(screen.order.len(), 30, "escape shows all again");
        typed(&mut screen, "Lold\n");
        assert_eq!(
            (screen.order.len(), screen.view.label.as_deref()),
            (30, Some("old"))
        );
        typed(&mut screen, "f");
        assert_eq!(screen.view.status, Some(Status::Downloading));
        typed(&mut screen, "f");
        assert_eq!(
            (screen.view.status, screen.order.len()),
            (Some(Status::Seeding), 0)
        );
    }

    #[test]
    fn prompts_take_text_and_pastes_and_refuse_what_is_no_rate() {
        let mut screen = screen(2);
        typed(&mut screen, "a");
        screen.handle(Event::Paste(" magnet:?x\n\x1b[2J ".into()));
        let added = typed(&mut screen, "&dn=q\n");
        let link = "magnet:?x[2J&dn=q".to_owned();
        assert_eq!(added, Some(Command::Ask(Request::Add(link))));
        typed(&mut screen, "aone two");
        control(&mut screen, 'w');
        assert_eq!(
            screen.overlay,
            Some(Overlay::Prompt(Prompt::Add, "one ".into()))
        );
        control(&mut screen, 'u');
        assert_eq!(typed(&mut screen, "\n"), None, "nothing is added");
        assert_eq!(typed(&mut screen, "m2MB/s\n"), None);
        assert!(screen.message.as_ref().unwrap().0.contains("two rates"));
        assert_eq!(
            typed(&mut screen, " default\n"),
            Some(Command::Ask(Request::Limit(
                vec![hash(1)],
                Some(2_000_000),
                None
            )))
        );
        assert_eq!(
            typed(&mut screen, "Mnone default\n"),
            Some(Command::Ask(Request::LimitServer(Some(0), None)))
        );
        assert_eq!(
            typed(&mut screen, "Mnone 1MiB/s\n"),
            Some(Command::Ask(Request::LimitServer(Some(0), Some(1 << 20))))
        );
        screen.handle(Event::Paste("q".into()));
        assert!(screen.overlay.is_none(), "without a prompt it goes nowhere");
        typed(&mut screen, "a");
        screen.handle(Event::Paste("x".repeat(1 << 20)));
        let Some(Overlay::Prompt(_, text)) = &screen.overlay else {
            panic!("the prompt has gone");
        };
        assert_eq!(text.len(), PROMPT_BYTES_MAX);
    }

    #[test]
    fn a_torrent_is_looked_at_tab_by_tab() {
        let mut screen = screen(2);
        let watch = |tab| Some(Command::Watch(Some((hash(1), tab))));
        assert_eq!(typed(&mut screen, "\n"), watch(Tab::Overview));
        assert_eq!(press(&mut screen, KeyCode::Tab), watch(Tab::Files));
        assert_eq!(press(&mut screen, KeyCode::BackTab), watch(Tab::Overview));
        assert_eq!(press(&mut screen, KeyCode::BackTab), watch(Tab::Log));
        assert_eq!(typed(&mut screen, "5"), watch(Tab::Pieces));
        assert_eq!(typed(&mut screen, "jjG"), None);
        let part = Part::Trackers(Vec::new());
        screen.handle(Event::Detail(hash(1), part));
        assert_eq!(screen.targets(), [hash(1)]);
        typed(&mut screen, "d");
        assert!(matches!(screen.overlay, Some(Overlay::Confirm(..))));
        typed(&mut screen, "n");
        assert_eq!(typed(&mut screen, "\x1b"), Some(Command::Watch(None)));
        assert!(screen.detail.is_none());
        assert_eq!(control(&mut screen, 'c'), Some(Command::Quit));
    }

    #[test]
    fn help_is_left_by_any_key() {
        let mut screen = screen(1);
        typed(&mut screen, "?");
        assert_eq!(screen.overlay, Some(Overlay::Help));
        assert_eq!(typed(&mut screen, "q"), None);
        assert_eq!(screen.overlay, None);
        screen.handle(Event::Changes(Box::new(all(1))));
        assert_eq!(typed(&mut screen, "q"), Some(Command::Quit));
    }
}
