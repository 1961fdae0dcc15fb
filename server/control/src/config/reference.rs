//! The reference file: every key with its comment and its default, itself a valid configuration.

use super::Config;
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
            let _ = writeln!(text, "#{} = {}", key.name, key.default);
        }
    }
    text.push_str(LISTS);
    text
}

/// A line of a doc comment, which starts with the blank after its slashes.
fn comment(text: &mut String, line: &str) {
    text.push('#');
    text.push_str(line.trim_end());
    text.push('\n');
}
