//! The reference file, what a reload takes, and the profiles that are delivered.

use super::*;

/// The reference file in the repository.
fn committed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../config")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_committed_reference_file_is_up_to_date() {
    assert_eq!(
        committed("seedring.toml"),
        reference(),
        "run `cargo run -- config > config/seedring.toml`"
    );
}

#[test]
fn the_reference_means_the_defaults_commented_out_or_not() {
    let text = reference();
    assert_eq!(
        Config {
            file: None,
            ..load(&text).unwrap()
        },
        Config::default()
    );
    let keys = Config::SECTIONS
        .iter()
        .map(|name| Config::default().section(name).unwrap().keys());
    let mut active = String::new();
    let mut uncommented = 0;
    for line in text.split("\n#[[torrent]]").next().unwrap().lines() {
        match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => {
                active.push_str(key);
                uncommented += 1;
            }
            _ => active.push_str(line),
        }
        active.push('\n');
    }
    assert_eq!(uncommented, keys.map(|keys| keys.len()).sum::<usize>());
    assert_eq!(
        Config {
            file: None,
            ..load(&active).unwrap()
        },
        Config::default()
    );
}

/// What is live is taken, what is fixed stays, and both are told.
#[test]
fn a_configuration_that_is_read_again_changes_what_is_live_alone() {
    let before = load("[peers]\nport = 7000\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let text = format!(
        "[peers]\nport = 7001\nhandshakes_max = 5\n[limits]\nupload_rate = 9\n[state]\ndir = \"{path}/s\"\n\
         [[seed]]\npath = \"{path}\"\n"
    );
    let after = load(&text).unwrap();
    let mut running = before.clone();
    let changes = running.renew(&after);
    let told: Vec<_> = changes
        .iter()
        .map(|change| (change.section, change.key, change.reload))
        .collect();
    assert_eq!(
        told,
        [
            ("peers", "port", Reload::Fixed),
            ("peers", "handshakes_max", Reload::Live),
            ("limits", "upload_rate", Reload::Live),
            ("state", "dir", Reload::Fixed),
        ]
    );
    assert_eq!(
        (running.peers.port, running.peers.handshakes_max),
        (7000, 5)
    );
    assert_eq!(
        (running.limits.upload_rate.0, running.state.dir.as_ref()),
        (9, None)
    );
    assert_eq!(running.seeds, after.seeds);
    // What stays as it was is told again, what was taken is not.
    let told: Vec<_> = running
        .renew(&after)
        .iter()
        .map(|change| change.key)
        .collect();
    assert_eq!(told, ["port", "dir"]);
}

/// The reference says of each key whether a reload takes it, as `Config::renew` does it.
#[test]
fn the_reference_says_of_every_key_whether_it_can_be_reloaded() {
    let config = Config::default();
    let text = reference();
    for name in Config::SECTIONS {
        let (_, section) = text.split_once(&format!("\n[{name}]\n")).unwrap();
        for key in config.section(name).unwrap().keys() {
            let (before, _) = section.split_once(&format!("\n#{} = ", key.name)).unwrap();
            let said = before.lines().last().unwrap();
            let expected = match key.reload {
                Reload::Live => "# Reload: yes.",
                Reload::Fixed => "# Reload: no, it needs a restart.",
            };
            assert_eq!(said, expected, "{name}.{}", key.name);
        }
    }
}

/// What the reference says of the lists can be read, and means the defaults.
#[test]
fn the_keys_of_lists_have_the_defaults_that_the_reference_shows() {
    let keys = |keys: Vec<table::Key>, but: &[&str]| -> String {
        let keys = keys.into_iter().filter(|key| !but.contains(&key.name));
        keys.map(|key| format!("{} = {}\n", key.name, key.default))
            .collect()
    };
    let watch = keys(WatchEntry::default().keys(), &["path"]);
    let hook = keys(HookEntry::default().keys(), &["on", "run"]);
    let config = load(&format!(
        "[[watch]]\npath = \"/absent/watch\"\n{watch}[[hook]]\non = [\"added\"]\nrun = \
         [\"/bin/sh\"]\n{hook}"
    ));
    let config = config.unwrap();
    let path = config.watches[0].path.clone();
    let expected = WatchEntry {
        path,
        ..WatchEntry::default()
    };
    assert_eq!(config.watches, [expected]);
    let HookEntry { on, run, .. } = config.hooks[0].clone();
    let expected = HookEntry {
        on,
        run,
        ..HookEntry::default()
    };
    assert_eq!(config.hooks, [expected]);
}

#[test]
fn every_key_is_explained() {
    let lists: [(&str, &dyn Section); 2] = [
        ("watch", &WatchEntry::default()),
        ("hook", &HookEntry::default()),
    ];
    for (name, entry) in lists {
        for key in entry.keys() {
            assert!(!key.doc.is_empty(), "{name}.{} has no comment", key.name);
            let long = key.doc.iter().find(|line| line.len() > 99);
            assert!(long.is_none(), "{name}.{}: {long:?}", key.name);
        }
    }
    for name in Config::SECTIONS {
        for key in Config::default().section(name).unwrap().keys() {
            assert!(!key.doc.is_empty(), "{name}.{} has no comment", key.name);
            let long = key.doc.iter().find(|line| line.len() > 99);
            assert!(long.is_none(), "{name}.{}: {long:?}", key.name);
        }
    }
}

#[test]
fn the_profiles_are_valid() {
    for profile in ["profiles/seedbox.toml", "profiles/datacenter.toml"] {
        let config = load(&committed(profile)).unwrap_or_else(|error| panic!("{profile}: {error}"));
        assert_ne!(
            Config {
                file: None,
                ..config
            },
            Config::default(),
            "{profile} sets nothing"
        );
    }
}
