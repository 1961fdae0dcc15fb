//! Tests of the configuration: what is read, and how each mistake is reported.

use super::*;
use std::net::{Ipv4Addr, SocketAddr};

mod conflicts;
mod mistakes;
mod places;
mod reference;
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
