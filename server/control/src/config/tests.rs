//! Tests of the configuration: what is read, and how each mistake is reported.

use super::*;
use std::net::{Ipv4Addr, SocketAddr};

mod roots;

fn no_variables() -> Environment {
    Environment::of::<String, String>([])
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &no_variables())
}

fn load_with(text: &str, environment: &Environment) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seedring.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file), environment)
}

/// The problems with the folder cut off: `seedring.toml:1:2: key: message`.
fn problems(text: &str) -> Vec<String> {
    let error = load(text).expect_err("the configuration is wrong");
    error
        .to_string()
        .lines()
        .map(|line| line[line.find("seedring.toml").unwrap()..].to_owned())
        .collect()
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = load("").unwrap();
    assert_eq!(
        Config {
            file: None,
            ..config
        },
        Config::default()
    );
    let config = Config::load(None, &no_variables()).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn every_kind_of_value_is_read() {
    let config = load(
        r#"
peers.port = 0
[storage]
buffer_bytes = "128MiB"
batch_bytes = 131072
verify = "always"
[limits]
upload_rate = "1Gbit/s"
[api]
listen = "[::1]:0"
allowed_hosts = ["Seed.Example.org"]
[tracker]
enabled = true
listen_v6 = ""
"#,
    )
    .unwrap();
    assert_eq!(config.peers.port, 0);
    assert_eq!(config.storage.buffer_bytes, ByteSize::mib(128));
    assert_eq!(config.storage.batch_bytes, ByteSize::kib(128));
    assert_eq!(config.storage.verify, Verify::Always);
    assert_eq!(config.limits.upload_rate, ByteRate(125_000_000));
    assert_eq!(
        config.api.listen,
        Some("[::1]:0".parse::<SocketAddr>().unwrap())
    );
    assert_eq!(config.api.allowed_hosts, ["seed.example.org"]);
    assert!(config.tracker.enabled);
    assert_eq!(config.tracker.listen_v6, None);
}

#[test]
fn each_mistake_names_line_column_key_and_what_is_allowed() {
    for (text, expected) in [
        (
            "[peers]\nport = 70000\n",
            "seedring.toml:2:8: peers.port: 70000 is not allowed; \
             allowed: an integer from 0 to 65535",
        ),
        (
            "[peers]\nport = -1\n",
            "seedring.toml:2:8: peers.port: -1 is not allowed; \
             allowed: an integer from 0 to 65535",
        ),
        (
            "\n[peers]\n  port = \"6890\"\n",
            "seedring.toml:3:10: peers.port: \"6890\" is not allowed; \
             allowed: an integer from 0 to 65535",
        ),
        (
            "peers.prot = 1",
            "seedring.toml:1:7: peers.prot: there is no such key; did you mean port?",
        ),
        (
            "[log]\ncolour = true",
            "seedring.toml:2:1: log.colour: there is no such key; known are format, level",
        ),
        (
            "[peer]\n",
            "seedring.toml:1:2: peer: there is no such section; did you mean peers?",
        ),
        (
            "peers = 3\n",
            "seedring.toml:1:1: peers: is a section: write [peers] and its keys below it",
        ),
        (
            "[torrent]\n",
            "seedring.toml:1:2: torrent: is a list: write [[torrent]] in double brackets before \
             each entry",
        ),
        (
            "[shards]\npin = 1\n",
            "seedring.toml:2:7: shards.pin: 1 is not allowed; allowed: true or false",
        ),
        (
            "[dht]\nbootstrap = [\"dht.example.org\"]\n",
            "seedring.toml:2:13: dht.bootstrap: entry 1, \"dht.example.org\", is not allowed; allowed: \
             a list of at most 64 nodes, such as [\"dht.example.org:6881\", \"192.0.2.1:6881\"]",
        ),
        (
            "[log]\nformat = \"xml\"\n",
            "seedring.toml:2:10: log.format: \"xml\" is not allowed; \
             allowed: one of \"human\", \"json\", \"journald\"",
        ),
        (
            "[api]\nlisten = \"localhost:8690\"\n",
            "seedring.toml:2:10: api.listen: \"localhost:8690\" is not allowed; allowed: an \
             address and port such as \"127.0.0.1:8690\" or \"[::1]:8690\", or \"\" for off",
        ),
        (
            "[storage]\nbuffer_bytes = \"1kB\"\n",
            "seedring.toml:2:16: storage.buffer_bytes: \"1kB\" is not allowed; allowed: bytes, or \
             a string with a unit (\"64MiB\", \"1GB\"), from 1MiB to 1TiB",
        ),
        (
            "[shards]\ncount = 5\n[storage]\nbuffer_bytes = \"1MiB\"\n",
            "seedring.toml:4:16: storage.buffer_bytes: is less than one buffer of \
             storage.batch_bytes for each of shards.count shards; raise it",
        ),
        (
            "[peers]\nbind_v4 = \"\"\nbind_v6 = \"\"\n",
            "seedring.toml:3:11: peers.bind_v6: bind_v4 and bind_v6 are both off, so no peer could \
             connect; set one of them",
        ),
        (
            "[peers]\nbind_interface = \"wg0\"\n[lsd]\ninterfaces = [\"wg0\", \"eth0\"]\n",
            "seedring.toml:4:14: lsd.interfaces: \"eth0\" is not peers.bind_interface, so peers that \
             are found there could not be met; leave it out",
        ),
        (
            "[peers]\nbind_interface = \"wg/0\"\n",
            "seedring.toml:2:18: peers.bind_interface: \"wg/0\" is not allowed; allowed: the name of \
             an interface such as \"wg0\", or \"\" for any",
        ),
        (
            "[api]\nlisten = \"127.0.0.1:6890\"\n",
            "seedring.toml:2:10: api.listen: port 6890 is peers.port's already; give each \
             listener a port of its own",
        ),
        (
            "[state]\ndir = \"/nonexistent/seedring/state\"\n",
            "seedring.toml:2:7: state.dir: /nonexistent/seedring: No such file or directory (os \
             error 2); it must exist and be readable before the server starts",
        ),
        (
            "[[seed]]\npath = \"/nonexistent/data\"\n",
            "seedring.toml:2:8: seed.path: /nonexistent/data: No such file or directory (os error \
             2); it must exist and be readable before the server starts",
        ),
        (
            "[[torrent]]\ntorrent = \"/nonexistent/a.torrent\"\ndata = \"/\"\n",
            "seedring.toml:2:11: torrent.torrent: /nonexistent/a.torrent: No such file or \
             directory (os error 2); it must exist and be readable before the server starts",
        ),
        (
            "[[torrent]]\ntorrent = \"seedring.toml\"\ndata = \"seedring.toml\"\n",
            "seedring.toml is not a folder",
        ),
        (
            "[[torrent]]\ndata = \"/\"\n",
            "seedring.toml:1:1: torrent.torrent: is missing; every [[torrent]] needs it",
        ),
        (
            "[[seed]]\npath = \"/\"\nlabel = \"x\"\n",
            "seedring.toml:3:1: seed.label: there is no such key; known are path",
        ),
        (
            "[[seed]]\npath = \"\"\n",
            "seedring.toml:2:8: seed.path: \"\" is not allowed; allowed: a path; a relative one \
             starts at the folder of this file",
        ),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
        // The one row whose file is in the folder of the test ends with its message only.
        assert!(
            problems[0].ends_with(expected),
            "{text:?}:\n{}\n{expected}",
            problems[0]
        );
    }
}

#[test]
fn the_wrong_entry_of_a_long_list_is_named() {
    let zones: Vec<String> = (0..4096)
        .map(|n| match n {
            2077 => "\"10.8.29/24=a\"".to_owned(),
            _ => format!("\"10.{}.{}.0/24=a\"", n / 256, n % 256),
        })
        .collect();
    let text = format!("[tracker]\nzones = [{}]\n", zones.join(", "));
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    let expected =
        "seedring.toml:2:9: tracker.zones: entry 2078, \"10.8.29/24=a\", is not allowed;";
    assert!(found[0].starts_with(expected), "{}", found[0]);
    let found = problems("[lsd]\ninterfaces = [\"eth0\", 1]\n");
    assert!(found[0].contains(": entry 2 is not a string;"), "{found:?}");
    // A list that is too long has no entry at fault.
    let text = format!(
        "[tracker]\nzones = [{}\"10.0.0.0/8=a\"]\n",
        "\"10.0.0.0/8=a\", ".repeat(4096)
    );
    assert!(
        problems(&text)[0].contains("… is not allowed;"),
        "{:?}",
        problems(&text)
    );
    let environment = Environment::of([("SEEDRING_DHT__BOOTSTRAP", "a:1,,b, c:2")]);
    let error = load_with("", &environment).unwrap_err().to_string();
    assert!(
        error.contains(": entry 2, \"b\", is not allowed;"),
        "{error}"
    );
}

#[test]
fn rules_of_limits_are_lists_of_which_the_wrong_entry_is_named() {
    let text = "[limits]\nlabels = [\"a b: upload=1MB/s peers=5\"]\n\
                schedule = [\"sat 08:00-20:00 download=0\", \"daily 01:00-02:00 upload=1\"]\n";
    let limits = load(text).unwrap().limits;
    assert_eq!(limits.labels[0].name, "a b");
    assert_eq!(limits.labels[0].limits.upload_rate, Some(1_000_000));
    assert_eq!(limits.labels[0].limits.peers_max, Some(5));
    assert_eq!(limits.schedule[0].download_rate, Some(0));
    assert_eq!(limits.schedule[1].upload_rate, Some(1));
    let found = problems("[limits]\ncategories = [\"a: upload=1\", \"a: ratio=x\"]\n");
    let expected =
        "seedring.toml:2:14: limits.categories: entry 2, \"a: ratio=x\", is not allowed;";
    assert!(found[0].starts_with(expected), "{found:?}");
    let found = problems("[limits]\nschedule = [\"mon 8-18 upload=1\"]\n");
    assert!(found[0].contains("entry 1") && found[0].contains("mon-fri 08:00-18:00"));
}

#[test]
fn a_network_in_two_zones_is_refused() {
    let found =
        problems("[tracker]\nzones = [\"10.1.0.0/16=a\", \"10.0.0.0/8=b\", \"10.1.0.0/16=c\"]\n");
    let expected = "seedring.toml:2:9: tracker.zones: 10.1.0.0/16 is in two zones: entry 1 says a, \
                    entry 3 says c; leave one";
    assert_eq!(found, [expected]);
    // Said twice, and a network within another, is no contradiction.
    load("[tracker]\nzones = [\"10.1.0.0/16=a\", \"10.0.0.0/8=b\", \"10.1.0.0/16=a\"]\n").unwrap();
}

#[test]
fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
    for bad in [
        "nonsense",
        "ftp://u:hunter2@x:1",
        "socks5://u:hunter2@host",
        "socks5h://",
    ] {
        let found = problems(&format!("[announce]\nproxy = \"{bad}\"\n"));
        let expected = "seedring.toml:2:9: announce.proxy: the value (not shown: it may hold a \
                        password) is not allowed; allowed: \"http://host:port\"";
        assert!(found[0].starts_with(expected), "{found:?}");
        let variable = Environment::of([("SEEDRING_ANNOUNCE__PROXY", bad)]);
        let error = load_with("", &variable).unwrap_err().to_string();
        assert!(error.contains("announce.proxy: the value"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for good in [
        "http://127.0.0.1:3128",
        "socks5h://u:hunter2@host:1080",
        "https://h:443",
    ] {
        let config = load(&format!("[announce]\nproxy = \"{good}\"\n")).unwrap();
        assert_eq!(config.announce.proxy.url(), Some(good));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    assert_eq!(
        load("announce.proxy = \"\"").unwrap().announce.proxy.url(),
        None
    );
}

#[test]
fn the_trackers_host_is_a_host_alone() {
    for bad in ["http://x/y", "host:6969", "a b", "x/y"] {
        let found = problems(&format!("[tracker]\nannounce_host = \"{bad}\"\n"));
        let expected = format!(
            "seedring.toml:2:17: tracker.announce_host: \"{bad}\" is not allowed; allowed: a host \
             name or an IP address alone"
        );
        assert!(found[0].starts_with(&expected), "{found:?}");
    }
    let config = load("[tracker]\nannounce_host = \"2001:db8::1\"\n").unwrap();
    assert_eq!(config.tracker.announce_host.in_url(), Some("[2001:db8::1]"));
    assert_eq!(Config::default().tracker.announce_host.in_url(), None);
}

#[test]
fn a_congestion_control_that_the_kernel_does_not_have_is_refused_with_those_it_has() {
    let found = problems("[peers]\ncongestion_control = \"nonesuch\"\n");
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = std::fs::read_to_string(path).unwrap();
    let available: Vec<&str> = available.split_whitespace().collect();
    let expected = format!(
        "seedring.toml:2:22: peers.congestion_control: this kernel has no congestion control \
         \"nonesuch\"; it has: {}",
        available.join(", ")
    );
    assert_eq!(found, [expected]);
    // Everybody may take the one that is the system's.
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    load(&format!(
        "[peers]\ncongestion_control = \"{}\"\n",
        own.trim()
    ))
    .unwrap();
}

#[test]
fn what_is_not_toml_is_reported_where_it_is() {
    let problem = &problems("[peers]\nport 5\n")[0];
    assert!(problem.starts_with("seedring.toml:2:"), "{problem}");
    assert!(problem.contains("not TOML"), "{problem}");
    let problem = &problems("[peers]\nport = 1\nport = 2\n")[0];
    assert!(
        problem.starts_with("seedring.toml:3:1: not TOML: duplicate key"),
        "{problem}"
    );
}

#[test]
fn every_mistake_of_a_file_is_reported_in_its_order() {
    let found = problems("[log]\nlevel = 1\n[api]\nport = 1\n[shards]\ncount = 2000\n");
    let lines: Vec<&str> = found.iter().map(|line| &line[..16]).collect();
    assert_eq!(
        lines,
        ["seedring.toml:2:", "seedring.toml:4:", "seedring.toml:6:"]
    );
}

#[test]
fn columns_count_characters_and_hostile_text_is_escaped_and_cut() {
    let problem = &problems("[log]\n\"ä\u{202e}\" = 1\n")[0];
    assert!(
        problem.starts_with("seedring.toml:2:1: log.ä\\u{202e}: "),
        "{problem}"
    );
    let problem = &problems("state = { \"ä\" = 1, dri = 2 }\n")[1];
    assert!(
        problem.starts_with("seedring.toml:1:20: state.dri"),
        "{problem}"
    );
    let long = format!("[log]\nlevel = \"{}\"\n", "x".repeat(5_000));
    assert!(problems(&long)[0].len() < 300);
    let long = format!("{} = 1\n", "é".repeat(5_000));
    assert!(problems(&long)[0].len() < 400);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), &no_variables());
    let message = missing.unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/x.toml: cannot read the configuration: "));

    let folder = tempfile::tempdir().unwrap();
    let message = Config::load(Some(folder.path()), &no_variables())
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("it is a folder; name a file"),
        "{message}"
    );

    let file = folder.path().join("latin1.toml");
    std::fs::write(&file, b"# one\n# \xe9\n").unwrap();
    let message = Config::load(Some(&file), &no_variables())
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("line 2: not UTF-8 at byte 8; save the file as UTF-8"),
        "{message}"
    );

    std::fs::write(&file, vec![b'#'; (16 << 20) + 1]).unwrap();
    let message = Config::load(Some(&file), &no_variables())
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("the configuration is larger than 16777216 bytes"),
        "{message}"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = Environment::of([
        ("SEEDRING_PEERS__PORT", "7000"),
        ("SEEDRING_LIMITS__UPLOAD_RATE", "10MB/s"),
        ("SEEDRING_SHARDS__PIN", "false"),
        ("SEEDRING_API__ALLOWED_HOSTS", "a.example, B.example"),
        ("SEEDRING_PEERS__BIND_V6", ""),
        // What Kubernetes sets for a service of this name; not ours.
        ("SEEDRING_PORT", "tcp://10.0.0.1:6890"),
        ("SEEDRING_SERVICE_HOST", "10.0.0.1"),
    ]);
    let config = load_with("[peers]\nport = 1\nlisten_backlog = 5\n", &environment).unwrap();
    assert_eq!(config.peers.port, 7000);
    assert_eq!(config.peers.listen_backlog, 5);
    assert_eq!(config.peers.bind_v4, Some(Ipv4Addr::UNSPECIFIED));
    assert_eq!(config.peers.bind_v6, None);
    assert_eq!(config.limits.upload_rate, ByteRate(10_000_000));
    assert!(!config.shards.pin);
    assert_eq!(config.api.allowed_hosts, ["a.example", "b.example"]);
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, expected) in [
        (
            "SEEDRING_PEERS__PROT",
            "1",
            "environment variable SEEDRING_PEERS__PROT: peers.prot: there is no such key; did you \
             mean port?",
        ),
        (
            "SEEDRING_PEERS__PORT",
            "many",
            "environment variable SEEDRING_PEERS__PORT: peers.port: \"many\" is not allowed; \
             allowed: an integer from 0 to 65535",
        ),
        (
            "SEEDRING_TORRENT__DATA",
            "/",
            "environment variable SEEDRING_TORRENT__DATA: torrent: there is no such section; known \
             are peers, shards, storage, limits, fetch, api, tracker, announce, dht, lsd, \
             library, log, state",
        ),
    ] {
        let error = load_with("", &Environment::of([(variable, value)])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn files_are_looked_for_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let user = folder.path().join("seedring");
    std::fs::create_dir(&user).unwrap();
    std::fs::write(user.join("seedring.toml"), "[peers]\nport = 2\n").unwrap();
    let mut environment = Environment::of([("XDG_CONFIG_HOME", folder.path())]);
    let config = Config::load(None, &environment).unwrap();
    assert_eq!(
        (config.peers.port, config.file),
        (2, Some(user.join("seedring.toml")))
    );

    environment.system_file = folder.path().join("system.toml");
    std::fs::write(&environment.system_file, "[peers]\nport = 1\n").unwrap();
    assert_eq!(Config::load(None, &environment).unwrap().peers.port, 1);

    let explicit = folder.path().join("explicit.toml");
    std::fs::write(&explicit, "[peers]\nport = 3\n").unwrap();
    assert_eq!(
        Config::load(Some(&explicit), &environment)
            .unwrap()
            .peers
            .port,
        3
    );

    // One that exists but cannot be used is an error, not a reason to take the next.
    std::fs::remove_file(&environment.system_file).unwrap();
    std::fs::create_dir(&environment.system_file).unwrap();
    assert!(Config::load(None, &environment).is_err());
}

#[test]
fn the_state_folder_has_a_default_for_everyone() {
    let state = |variables: &[(&str, &str)], root| {
        let mut environment = Environment::of(variables.iter().copied());
        environment.root = root;
        Config::default().state_dir(&environment)
    };
    assert_eq!(
        state(&[("HOME", "/root")], true),
        Path::new("/var/lib/seedring")
    );
    assert_eq!(
        state(&[("HOME", "/h")], false),
        Path::new("/h/.local/state/seedring")
    );
    let variables = [("HOME", "/h"), ("XDG_STATE_HOME", "/x")];
    assert_eq!(state(&variables, false), Path::new("/x/seedring"));
    let variables = [("HOME", "/h"), ("STATE_DIRECTORY", "/var/lib/private/s")];
    assert_eq!(state(&variables, false), Path::new("/var/lib/private/s"));
    assert_eq!(state(&[], false), Path::new("/var/lib/seedring"));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("a.torrent"), "").unwrap();
    let file = folder.path().join("seedring.toml");
    let text = "[state]\ndir = \"state\"\n[[torrent]]\ntorrent = \"a.torrent\"\ndata = \"data\"\n\
                [[seed]]\npath = \"data\"\n[[seed]]\npath = \"a.torrent\"\n";
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &no_variables()).unwrap();
    assert_eq!(config.state.dir, Some(folder.path().join("state")));
    assert_eq!(config.torrents[0].data, folder.path().join("data"));
    assert_eq!(config.torrents[0].torrent, folder.path().join("a.torrent"));
    assert_eq!(config.seeds.len(), 2);
}

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

#[test]
fn an_authority_without_certificates_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |pem: &str| {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        let found = problems(&format!("[announce]\nca_files = [{path:?}]\n"));
        let place = "seedring.toml:2:12: announce.ca_files: ";
        assert!(found[0].starts_with(place), "{found:?}");
        assert!(found[0].contains("holds no certificates"), "{found:?}");
    };
    refused("root:x:0:0::/root:/bin/bash\n");
    refused("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n");
}

#[test]
fn a_tracker_that_may_listen_nowhere_is_refused_where_it_is_on() {
    let text = "[tracker]\nlisten_v4 = \"\"\nlisten_v6 = \"\"\n";
    load(text).unwrap();
    let found = problems(&format!("{text}enabled = true\n"));
    let place = "seedring.toml:3:13: tracker.listen_v6: listen_v4 and listen_v6 are both off";
    assert!(found[0].starts_with(place), "{found:?}");
}

#[test]
fn the_dht_does_not_have_the_port_on_which_the_tracker_answers() {
    let text = "dht.port = 6969\ntracker.enabled = true\n";
    let found = problems(text);
    let place = "seedring.toml:1:12: dht.port: port 6969 is the tracker's over UDP already";
    assert!(found.len() == 1 && found[0].starts_with(place), "{found:?}");
    // Each of these keeps them apart, also if the other family would clash.
    for more in [
        "tracker.udp = false",
        "announce.proxy = \"http://127.0.0.1:1\"",
        "dht.enabled = false",
        "tracker.listen_v4 = \"\"\npeers.bind_v6 = \"\"",
        "tracker.listen_v6 = \"\"\ntracker.listen_v4 = \"127.0.0.2:6969\"\n\
         peers.bind_v4 = \"127.0.0.1\"",
    ] {
        load(&format!("{text}{more}\n")).unwrap_or_else(|error| panic!("{more}: {error}"));
    }
    load("dht.port = 6969\n").unwrap();
    let any = "tracker.enabled = true\ntracker.listen_v4 = \"0.0.0.0:0\"\n";
    load(&format!("{any}tracker.listen_v6 = \"[::]:0\"\n")).unwrap();
}

#[test]
fn addresses_that_no_host_has_are_refused() {
    for (bad, why) in [
        ("239.1.1.1", "a multicast group"),
        ("0.0.0.1", "0.0.0.0/8"),
        ("255.255.255.255", "all hosts"),
        ("240.0.0.1", "reserved"),
        ("ff02::1", "a multicast group"),
        ("::ffff:10.0.0.1", "an IPv4 address"),
        ("fe80::1", "a zone"),
    ] {
        for section in ["peers", "announce"] {
            let key = if bad.contains(':') {
                "bind_v6"
            } else {
                "bind_v4"
            };
            let found = problems(&format!("[{section}]\n{key} = \"{bad}\"\n"));
            let place = format!("seedring.toml:2:11: {section}.{key}: ");
            assert!(found[0].starts_with(&place), "{found:?}");
            assert!(found[0].contains(why), "{found:?}");
        }
    }
    load("announce.bind_v4 = \"0.0.0.0\"\nannounce.bind_v6 = \"::\"\n").unwrap();
}

#[test]
fn no_watch_sees_the_folder_of_a_category() {
    let watching = |path: &str| {
        format!(
            "[library]\ncategory_paths = [\"tv: /absent/tv\"]\n[[watch]]\npath = \"{path}\"\n\
             recursive = true\n"
        )
    };
    for path in ["/absent/tv", "/absent"] {
        let found = problems(&watching(path));
        let why = "data of torrents come into \"/absent/tv\"";
        assert!(found[0].contains(why), "{found:?}");
    }
    load(&watching("/other")).unwrap();
}
