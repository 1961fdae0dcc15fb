//! `seedring top`: watches a server in the terminal and acts on its torrents.
//!
//! [`screen`] is what is going on, [`keys`] what keys do to it, [`draw`] how it looks: all three
//! know no server and no terminal. [`feed`] asks the server; this file ties them together, and sees
//! to it that the terminal is as it was when this ends, however it does.

mod copy;
mod draw;
mod feed;
mod history;
mod keys;
mod pieces;
mod screen;

use crate::cli::Global;
use crate::client::{ServerArgs, find};
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use clap::Args;
use control::api::types::ServerStatus;
use draw::Look;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use screen::{Command, Event, Screen};
use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Events that wait to be drawn. Who has more to say waits.
const EVENTS_MAX: usize = 64;
/// Requests that wait for the server. Who asks for more is told to wait.
const REQUESTS_MAX: usize = 64;

/// Arguments of `seedring top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seedring top
  seedring top --url https://seed.example:8690 --token-file ~/.seedring-token
  NO_COLOR=1 seedring top                 without colours

? shows what the keys do. A server that goes away is waited for. It needs no mouse, works over ssh \
and at 80 columns by 24 rows; where the locale is not UTF-8 it draws with ASCII.")]
pub struct TopArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub fn run(global: &Global, args: &TopArgs) -> Result<(), Failure> {
    if global.json || !stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(anyhow!(
            "top is for a terminal; `seedring list --watch --json` is for programs"
        )));
    }
    let client = find(global, &args.server)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Nobody is shown an empty screen: what cannot be asked now is told as by every other command.
    runtime.block_on(client.get::<ServerStatus>("/server"))?;
    let (events, heard) = sync_channel(EVENTS_MAX);
    let (watching, watched) = watch::channel(None);
    let (asking, asked) = mpsc::channel(REQUESTS_MAX);
    runtime.spawn(feed::follow(client.clone(), events.clone(), watched));
    runtime.spawn(feed::work(client.clone(), events.clone(), asked));
    runtime.block_on(async { end_by_signals(&events) })?;
    let look = look(client.place().to_string());
    let outcome = shown(&look, events, &heard, &watching, &asking);
    runtime.shutdown_background();
    Ok(outcome.context("the terminal")?)
}

/// Tells of a signal that ends the process.
fn end_by_signals(events: &SyncSender<Event>) -> Result<(), Failure> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    for kind in kinds {
        let mut signal = signal(kind).context("cannot listen for signals")?;
        let events = events.clone();
        tokio::spawn(async move {
            signal.recv().await;
            let _ = events.send(Event::End);
        });
    }
    Ok(())
}

/// What the terminal can show.
fn look(place: String) -> Look {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(variable);
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    Look {
        is_coloured: variable("NO_COLOR").is_none(),
        is_ascii: !locale.contains("utf-8") && !locale.contains("utf8"),
        place,
    }
}

/// Takes the terminal, and gives it back.
fn shown(
    look: &Look,
    events: SyncSender<Event>,
    heard: &Receiver<Event>,
    watching: &watch::Sender<feed::Watched>,
    asking: &mpsc::Sender<screen::Request>,
) -> std::io::Result<()> {
    // A panic is printed when the terminal is as it was; ratatui's own hook does the rest.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = execute!(stdout(), DisableBracketedPaste);
        hook(panic);
    }));
    let mut terminal = ratatui::try_init()?;
    // A terminal that cannot tell what is pasted sends it as keys.
    let _ = execute!(stdout(), EnableBracketedPaste);
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || read_terminal(&events))?;
    let outcome = drawn(&mut terminal, look, heard, watching, asking);
    let _ = execute!(stdout(), DisableBracketedPaste);
    ratatui::restore();
    outcome
}

/// Tells of keys until nobody listens or the terminal has gone.
fn read_terminal(events: &SyncSender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) => Event::Key(key),
            Ok(event::Event::Paste(text)) => Event::Paste(text),
            Ok(event::Event::Resize(columns, rows)) => Event::Size(columns, rows),
            Ok(_) => continue,
            Err(_) => Event::End,
        };
        let is_end = matches!(event, Event::End);
        if events.send(event).is_err() || is_end {
            return;
        }
    }
}

/// Draws, waits for something to happen, does what it brings, until the user leaves.
fn drawn(
    terminal: &mut ratatui::DefaultTerminal,
    look: &Look,
    heard: &Receiver<Event>,
    watching: &watch::Sender<feed::Watched>,
    asking: &mpsc::Sender<screen::Request>,
) -> std::io::Result<()> {
    let size = terminal.size()?;
    let mut screen = Screen::new(size.width, size.height);
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen, look))?;
        let Ok(first) = heard.recv() else {
            return Ok(());
        };
        // What has happened meanwhile is drawn at once.
        for event in std::iter::once(first).chain(heard.try_iter().take(EVENTS_MAX)) {
            match screen.handle(event) {
                None => {}
                Some(Command::Quit) => return Ok(()),
                Some(Command::Watch(what)) => drop(watching.send_replace(what)),
                Some(Command::Ask(request)) => ask(asking, request, &mut screen),
            }
        }
    }
}

/// Hands a request to who does it.
fn ask(asking: &mpsc::Sender<screen::Request>, request: screen::Request, screen: &mut Screen) {
    if asking.try_send(request).is_err() {
        screen.say("not done: too much waits for the server".to_owned(), true);
    }
}
