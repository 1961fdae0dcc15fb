//! Keys that are right by themselves and wrong together.

use super::*;

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
