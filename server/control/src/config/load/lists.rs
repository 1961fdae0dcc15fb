//! Reads `[[watch]]` and `[[hook]]`, and checks each by itself and against the others.

use super::{Kind, Loader, Source, escape, expect_path, unknown};
use crate::config::lists::{HOOKS_MAX, HookEntry, WATCHES_MAX, WatchEntry};
use crate::config::setting::Input;
use crate::config::table::{Refused, Section};
use crate::config::{Environment, conflicts};
use crate::hooks::Argument;
use std::ops::Range;
use toml::de::DeValue;

impl Loader {
    /// Reads an entry of a list; none if something is wrong with it, which is reported.
    fn read_entry<Entry: Section + Default>(
        &mut self,
        source: &Source<'_>,
        list: &str,
        (span, value): (Range<usize>, &DeValue<'_>),
    ) -> Option<Entry> {
        let Some(keys) = value.as_table() else {
            let message = format!("is a table: write [[{list}]] and its keys below it");
            self.problem(source.place(span), list, message);
            return None;
        };
        let mut entry = Entry::default();
        let problems_before = self.problems.len();
        for (name, value) in keys {
            let key = name.get_ref().as_ref();
            match entry.set(key, Input::Toml(value.get_ref())) {
                Ok(()) => {}
                Err(Refused::Unknown) => {
                    let known: Vec<&str> = entry.keys().iter().map(|key| key.name).collect();
                    let message = unknown("key", key, &known);
                    let key = format!("{list}.{}", escape(key, 60));
                    self.problem(source.place(name.span()), key, message);
                }
                Err(Refused::Value(wrong)) => {
                    let message = wrong.message(&source.excerpt(value.span()));
                    let place = source.place(value.span());
                    self.problem(place, format!("{list}.{key}"), message);
                }
            }
        }
        (self.problems.len() == problems_before).then_some(entry)
    }

    pub(super) fn read_watch(
        &mut self,
        source: &Source<'_>,
        span: Range<usize>,
        value: &DeValue<'_>,
    ) {
        let place = source.place(span.clone());
        let Some(entry) = self.read_entry::<WatchEntry>(source, "watch", (span, value)) else {
            return;
        };
        let number = self.config.watches.len();
        if number == WATCHES_MAX {
            let message = format!("there are more than {WATCHES_MAX}; watch a folder above them");
            self.problem(place, "watch", message);
            return;
        }
        self.places.insert(format!("watch[{number}]"), place);
        self.config.watches.push(entry);
    }

    pub(super) fn read_hook(
        &mut self,
        source: &Source<'_>,
        span: Range<usize>,
        value: &DeValue<'_>,
    ) {
        let place = source.place(span.clone());
        let Some(mut entry) = self.read_entry::<HookEntry>(source, "hook", (span, value)) else {
            return;
        };
        for path in [&mut entry.secret_file, &mut entry.token_file] {
            *path = path.as_deref().map(|path| source.resolve(path));
        }
        let number = self.config.hooks.len();
        if number == HOOKS_MAX {
            let message = format!("there are more than {HOOKS_MAX}; let one program do the work");
            self.problem(place, "hook", message);
            return;
        }
        self.places.insert(format!("hook[{number}]"), place);
        self.config.hooks.push(entry);
    }

    /// Checks the entries of both lists against each other, other keys, and the file system.
    pub(super) fn check_lists(&mut self, environment: &Environment) {
        let watches = conflicts::of_watches(&self.config, environment).into_iter();
        let mut problems: Vec<(String, String, String)> = watches
            .map(|(number, key, message)| (format!("watch[{number}]"), key.to_owned(), message))
            .collect();
        for (number, hook) in self.config.hooks.iter().enumerate() {
            let mut wrong = |(key, message): (&str, String)| {
                problems.push((format!("hook[{number}]"), key.to_owned(), message));
            };
            conflicts::of_hook(hook).into_iter().for_each(&mut wrong);
            let program = hook.run.0.first().and_then(Argument::as_path);
            let files = [
                ("hook.run", program),
                ("hook.secret_file", hook.secret_file.clone()),
                ("hook.token_file", hook.token_file.clone()),
            ];
            for (key, path) in files {
                if let Some(path) = path
                    && let Err(message) = expect_path(&path, Kind::File)
                {
                    wrong((key, message));
                }
            }
        }
        for (entry, key, message) in problems {
            let place = self.places.get(&entry).cloned();
            let place = place.unwrap_or(super::Place::Default);
            self.problem(place, key, message);
        }
    }
}
