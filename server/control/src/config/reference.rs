//! The reference file: every key with its comment and its default, itself a valid configuration.

use super::table::{Reload, Section};
use super::{Config, HookEntry, WatchEntry};
use std::fmt::Write;

const HEAD: &str = "\
# Seedring's configuration: every key with its default.
#
# Made from the program's own documentation by `seedring config`; `seedring config check FILE` checks
# a file without starting anything. A key that is commented out has the value shown. The environment
# variable SEEDRING_SECTION__KEY overrides a key, for example SEEDRING_PEERS__PORT=7000.
#
# It is looked for at --config FILE, else /etc/seedring/seedring.toml, else
# $XDG_CONFIG_HOME/seedring/seedring.toml (by default ~/.config/seedring/seedring.toml).
#
# On SIGHUP (systemctl reload seedring) a running `serve` reads it again. What is wrong is logged and changes
# nothing. Keys with \"Reload: yes\" take their new values then; of the others that have changed, the log
# names each, and they count from the next start. [[torrent]] and [[seed]] are compared: what is new is
# loaded, what is gone is withdrawn, and of the rest what could not be served before is tried again. [[watch]]
# and [[hook]] are taken as they are then.
";

const LISTS: &str = "
# Torrents to seed, one [[torrent]] each: a .torrent file and the folder that holds its data. Both
# must exist. A relative path starts at the folder of this file.
#
#[[torrent]]
#torrent = \"/srv/torrents/debian-12.iso.torrent\"
#data = \"/srv/data\"

# Files and folders to seed, one [[seed]] each: their torrents are made, or reused if they did not
# change.
#
#[[seed]]
#path = \"/srv/release\"
";

/// The lists whose entries are declared as sections are.
fn entries() -> [(&'static str, Box<dyn Section>, &'static str); 2] {
    let watch = "path = \"/srv/watch\"";
    let hook = "on = [\"completed\"]\n#run = [\"/usr/local/bin/completed\", \"{info_hash}\"]";
    [
        ("watch", Box::new(WatchEntry::default()), watch),
        ("hook", Box::new(HookEntry::default()), hook),
    ]
}

/// The text of the reference file.
pub fn reference() -> String {
    let config = Config::default();
    let mut text = HEAD.to_owned();
    for name in Config::SECTIONS {
        let Some(section) = config.section(name) else {
            continue;
        };
        text.push('\n');
        for line in section.doc() {
            comment(&mut text, line);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[{name}]");
        for key in section.keys() {
            text.push('\n');
            for line in key.doc {
                comment(&mut text, line);
            }
            comment(&mut text, &format!(" Allowed: {}.", key.allowed));
            comment(&mut text, key.reload.told());
            let _ = writeln!(text, "#{} = {}", key.name, key.default);
        }
    }
    text.push_str(LISTS);
    for (name, section, example) in entries() {
        text.push('\n');
        for line in section.doc() {
            comment(&mut text, line);
        }
        let _ = writeln!(text, "#\n#[[{name}]]\n#{example}");
        text.push_str("#\n# Its keys, with their defaults:\n");
        for key in section.keys() {
            text.push_str("#\n");
            for line in key.doc {
                comment(&mut text, line);
            }
            comment(&mut text, &format!(" Allowed: {}.", key.allowed));
            let _ = writeln!(text, "#{} = {}", key.name, key.default);
        }
    }
    text
}

impl Reload {
    /// What the reference says of a key.
    fn told(self) -> &'static str {
        match self {
            Reload::Live => " Reload: yes.",
            Reload::Fixed => " Reload: no, it needs a restart.",
        }
    }
}

/// A line of a doc comment, which starts with the blank after its slashes.
fn comment(text: &mut String, line: &str) {
    text.push('#');
    text.push_str(line.trim_end());
    text.push('\n');
}
