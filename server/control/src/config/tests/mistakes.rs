//! How a value or a text that is wrong is reported.

use super::*;

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
