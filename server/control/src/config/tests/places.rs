//! Where a configuration is read from: files, the environment, paths within them.

use super::*;

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
