//! Who may ask.

use super::harness::{Bench, bench, exchange, hash};
use crate::api::{Access, Api, Facts, TOKEN_FILE};
use crate::config::{self, ApiAuth, ApiSocket, ApiUser, ApiUsers};
use crate::exporter::BuildInfo;
use crate::http::{self, SOCKET_FILE};
use argon2::password_hash::SaltString;
use argon2::{Argon2, Params, PasswordHasher};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use seedring_metrics::ControlCounter;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

/// A user whose password is quick to verify.
fn user(name: &str, password: &str) -> ApiUser {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"salty salt").unwrap();
    let hash = argon.hash_password(password.as_bytes(), &salt).unwrap();
    ApiUser {
        name: name.to_owned(),
        hash: hash.to_string(),
    }
}

fn basic(name: &str, password: &str) -> String {
    let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

async fn status(bench: &Bench, headers: &str) -> u16 {
    bench.send("GET /torrents", headers, b"").await.status
}

#[tokio::test]
async fn who_does_not_know_the_token_is_refused_and_changes_nothing() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let before = bench.revision();
    let line = format!("DELETE /torrents/{}", hash(1));
    let answer = bench.send(&line, "", b"").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.problem().0, "unauthorized");
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"seedring\""));
    assert_eq!(bench.cells.counter(ControlCounter::ApiRefusedLogin), 0);
    let token = &bench.token;
    let wrong = [
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", &token[1..]),
        format!("Authorization: Bearer {token}x\r\n"),
        format!("Authorization: Token {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        "Authorization: Basic ????\r\n".to_owned(),
        basic("admin", token),
    ];
    for headers in &wrong {
        let answer = bench.send(&line, headers, b"").await;
        assert_eq!(answer.status, 401, "{headers}");
        assert_eq!(answer.problem().0, "unauthorized");
        assert!(answer.header("www-authenticate").is_some());
    }
    assert_eq!(bench.revision(), before);
    let failed = bench.cells.counter(ControlCounter::ApiRefusedLogin);
    assert_eq!(failed, wrong.len() as u64);
    assert_eq!(bench.ask(&line, "").await.status, 204);
    // What is for monitoring asks nobody.
    let stream = bench.connect().await;
    let answer = exchange(stream, "GET /../../healthz", "", b"").await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn who_fails_too_often_waits_but_not_who_knows_the_token() {
    let users = ApiUsers(vec![user("admin", "right")]);
    let bench = bench(|settings| settings.users = users).await;
    for number in 0..10 {
        let answer = status(&bench, &basic("admin", "wrong")).await;
        assert_eq!(answer, 401, "{number}");
    }
    for headers in [
        basic("admin", "right"),
        basic("admin", "wrong"),
        "Authorization: Bearer wrong\r\n".to_owned(),
    ] {
        let answer = bench.send("GET /torrents", &headers, b"").await;
        assert_eq!(answer.status, 429, "{headers}");
        assert_eq!(answer.problem().0, "logins");
        let seconds = answer.header("retry-after").unwrap();
        assert!((1..=10).contains(&seconds.parse::<u64>().unwrap()));
    }
    assert_eq!(bench.cells.counter(ControlCounter::ApiRefusedLogins), 3);
    assert_eq!(bench.get("/torrents").await.status, 200);
    // Who has said nothing is told how to.
    assert_eq!(status(&bench, "").await, 401);
}

#[tokio::test]
async fn names_with_their_passwords_are_let_in() {
    let users = ApiUsers(vec![user("one", "first"), user("two", "päss:word")]);
    let bench = bench(|settings| settings.users = users).await;
    // The second time it is remembered.
    for _ in 0..2 {
        assert_eq!(status(&bench, &basic("one", "first")).await, 200);
        assert_eq!(status(&bench, &basic("two", "päss:word")).await, 200);
    }
    for (name, password) in [
        ("one", "päss:word"),
        ("two", "first"),
        ("three", "first"),
        ("", "first"),
        ("one", ""),
    ] {
        let headers = basic(name, password);
        assert_eq!(status(&bench, &headers).await, 401, "{name}");
    }
    let answer = bench.send("GET /torrents", "", b"").await;
    let basic = answer.head.to_ascii_lowercase();
    assert!(basic.contains("www-authenticate: basic realm=\"seedring\""));
}

#[tokio::test]
async fn the_socket_needs_no_token_unless_it_is_required() {
    let bench = bench(|_| {}).await;
    bench.fill([1]);
    let line = format!("GET /torrents/{}?secrets=true", hash(1));
    let answer = exchange(bench.connect_socket().await, &line, "", b"").await;
    assert_eq!(answer.status, 200);
    // By whatever name: no web page gets there.
    let headers = "Host: anything\r\n";
    let answer = exchange(bench.connect_socket().await, &line, headers, b"").await;
    assert_eq!(answer.status, 200);
    let required = self::bench(|settings| settings.auth = ApiAuth::Required).await;
    let socket = required.connect_socket().await;
    let answer = exchange(socket, "GET /torrents", "", b"").await;
    assert_eq!(answer.status, 401);
    let headers = format!("Authorization: Bearer {}\r\n", required.token);
    let socket = required.connect_socket().await;
    let answer = exchange(socket, "GET /torrents", &headers, b"").await;
    assert_eq!(answer.status, 200);
}

/// Where nobody is asked, passkeys are for those who show who they are all the same.
#[tokio::test]
async fn without_a_lock_all_but_secrets_are_told() {
    let bench = bench(|settings| settings.auth = ApiAuth::Off).await;
    bench.fill([1]);
    let path = format!("/torrents/{}", hash(1));
    for (path, expected) in [
        (path.clone(), 200),
        (format!("{path}?secrets=true"), 403),
        (format!("{path}/trackers"), 200),
        (format!("{path}/trackers?secrets=true"), 403),
        (format!("{path}/metainfo"), 403),
    ] {
        let line = format!("GET {path}");
        let answer = bench.send(&line, "", b"").await;
        assert_eq!(answer.status, expected, "{line}");
        assert_eq!(bench.ask(&line, "").await.status, 200, "{line}");
    }
    let answer = bench.send(&format!("DELETE {path}"), "", b"").await;
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_is_gone_when_the_server_is() {
    let bench = bench(|_| {}).await;
    let path = bench.folder.path().join(SOCKET_FILE);
    let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    // Nothing is left of how it was made.
    let names = std::fs::read_dir(bench.folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [TOKEN_FILE, SOCKET_FILE]);
    // Somebody listens there: it is not taken from them.
    let settings = config::Api {
        listen: None,
        ..config::Api::default()
    };
    let folder = bench.folder.path().to_owned();
    let refused = http::listen(&settings, Some(&folder)).await.unwrap_err();
    assert!(refused.to_string().contains("another program"), "{refused}");
    let _in_use = bench.connect_socket().await;
    let (kept, folder) = (bench.folder.path().join("kept"), folder);
    std::fs::hard_link(&path, &kept).unwrap();
    let _folder = bench.stop_and_keep().await;
    assert!(!path.exists());
    // What a server that was killed has left is replaced.
    std::fs::rename(&kept, &path).unwrap();
    let group = config::Api {
        socket_group: rustix::process::getegid().as_raw().to_string(),
        ..settings.clone()
    };
    let listener = http::listen(&group, Some(&folder)).await.unwrap();
    assert_eq!(mode(), 0o660);
    drop(listener);
    std::fs::write(&path, "a file").unwrap();
    let refused = http::listen(&settings, Some(&folder)).await.unwrap_err();
    assert!(refused.to_string().contains("no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    let unknown = config::Api {
        socket_group: "no such group".to_owned(),
        ..settings.clone()
    };
    let refused = http::listen(&unknown, Some(&folder)).await.unwrap_err();
    assert!(refused.to_string().contains("no such group"), "{refused}");
    let off = config::Api {
        socket: ApiSocket::Off,
        ..settings
    };
    assert!(http::listen(&off, Some(&folder)).await.is_ok());
}

/// A path that is too long for the kernel costs the socket and not the start, unless it was asked
/// for.
#[tokio::test]
async fn a_socket_whose_path_is_too_long_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let settings = config::Api {
        listen: None,
        ..config::Api::default()
    };
    assert!(http::listen(&settings, Some(&long)).await.is_ok());
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
    let named = config::Api {
        socket: ApiSocket::At(long.join("s")),
        ..settings
    };
    let refused = http::listen(&named, Some(&long)).await.unwrap_err();
    assert!(refused.to_string().starts_with("api.socket: "), "{refused}");
}

#[tokio::test]
async fn a_token_that_others_can_read_keeps_the_api_from_opening() {
    let bench = bench(|_| {}).await;
    let path = bench.folder.path().join(TOKEN_FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let build = BuildInfo {
        version: String::new(),
        commit: String::new(),
    };
    let (server, _seat) = crate::command::pair();
    let opened = Api::open(
        &config::Api::default(),
        bench.folder.path(),
        server,
        Arc::new(Facts::new(&build, Arc::default())),
        Arc::clone(&bench.cells),
    );
    let refused = opened.err().unwrap().to_string();
    assert!(refused.contains("mode 0644"), "{refused}");
}

/// What is taken out of the configuration is let in no more, whatever was right before.
#[tokio::test]
async fn who_may_ask_can_be_changed_while_the_server_runs() {
    let users = ApiUsers(vec![user("old", "right")]);
    let bench = bench(|settings| settings.users = users).await;
    let (old, new) = (basic("old", "right"), basic("new", "other"));
    assert_eq!(status(&bench, &old).await, 200);
    assert_eq!(status(&bench, &new).await, 401);
    let settings = config::Api {
        users: ApiUsers(vec![user("new", "other")]),
        ..config::Api::default()
    };
    // Somebody has made another token necessary.
    std::fs::remove_file(bench.folder.path().join(TOKEN_FILE)).unwrap();
    bench
        .api
        .renew(Access::read(&settings, bench.folder.path()).unwrap());
    assert_eq!(status(&bench, &old).await, 401);
    assert_eq!(status(&bench, &new).await, 200);
    assert_eq!(bench.get("/torrents").await.status, 401);
    let token = std::fs::read_to_string(bench.folder.path().join(TOKEN_FILE)).unwrap();
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(status(&bench, &bearer).await, 200);
    // Names by which it is asked, too.
    let by_name = format!("Host: seed.example\r\n{bearer}");
    assert_eq!(status(&bench, &by_name).await, 403);
    let settings = config::Api {
        allowed_hosts: vec!["seed.example".to_owned()],
        ..settings
    };
    bench
        .changeable
        .set(http::Renewal::read(&settings).unwrap());
    assert_eq!(status(&bench, &by_name).await, 200);
}

/// A certificate of our own, made for this test and worth nothing.
#[tokio::test]
async fn with_a_certificate_the_port_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, include_str!("testdata/cert.pem")).unwrap();
    std::fs::write(&key, include_str!("testdata/key.pem")).unwrap();
    let files = (cert.clone(), key.clone());
    let bench = bench(|settings| {
        settings.tls_cert = Some(files.0);
        settings.tls_key = Some(files.1);
    })
    .await;
    let authority = reqwest::Certificate::from_pem(include_bytes!("testdata/cert.pem")).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([authority])
        .no_proxy()
        .build()
        .unwrap();
    let port = bench.address.port();
    let url = format!("https://localhost:{port}/api/v1/torrents");
    let answer = client.get(&url).bearer_auth(&bench.token).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    // Who speaks no TLS is not answered.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = bench.connect().await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    std::fs::write(&key, "nothing").unwrap();
    let settings = config::Api {
        tls_cert: Some(cert),
        tls_key: Some(key),
        ..config::Api::default()
    };
    let refused = http::listen(&settings, None).await.unwrap_err();
    assert!(refused.to_string().contains("key.pem"), "{refused}");
}
