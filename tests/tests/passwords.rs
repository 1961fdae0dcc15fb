//! A password is made a line of the configuration, which lets in who has it, also after a reload.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use rustix::process::Signal;
use seedring_tests::process::Process;
use seedring_tests::server::{SHORT, event, seedring};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use tempfile::TempDir;

/// What `hash-password` prints of what comes by a pipe, and whether it succeeds.
fn hashed(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = seedring(["hash-password"]);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read, where the command line is wrong.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("secret"), "{told}");
    (output.status.success(), text.trim_end().to_owned())
}

/// The status of a request with this `Authorization: Basic`.
fn status(address: &str, basic: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /api/v1/server HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {basic}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_password_that_is_hashed_lets_in_and_goes_with_its_user() {
    let (is_done, line) = hashed(&["admin"], "secret\n");
    assert!(is_done && line.starts_with("admin:$argon2id$"), "{line}");
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("seedring.toml");
    let write = |users: &str| {
        let text = format!(
            "[peers]\nport = 0\nbind_v4 = \"127.0.0.1\"\nbind_v6 = \"\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\nusers = [{users}]\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    write("");
    let mut command = seedring(["serve", "--json", "--config"]);
    command
        .arg(&config)
        .arg("--state-dir")
        .arg(folder.path().join("state"));
    let mut server = Process::spawn("serve", &command);
    let ready = server.wait_for("ready line", SHORT, |process| event(process, "ready"));
    let api = ready["api"].as_str().unwrap().to_owned();
    let address = api.trim_start_matches("http://").trim_end_matches('/');
    // "admin:secret" and "admin:other".
    let (right, wrong) = ("YWRtaW46c2VjcmV0", "YWRtaW46b3RoZXI=");
    assert_eq!(status(address, right), "401");
    let mut reload = |users: &str, times: usize| {
        write(users);
        server.signal(Signal::HUP);
        server.wait_for("reload", SHORT, |process| {
            let said = process.stderr();
            let read = said
                .matches("the configuration has been read again")
                .count();
            (read == times).then_some(())
        });
    };
    reload(&format!("\"{line}\""), 1);
    assert_eq!(status(address, right), "200");
    assert_eq!(status(address, wrong), "401");
    reload("", 2);
    assert_eq!(status(address, right), "401");
}

#[test]
fn what_is_no_password_or_no_name_is_refused() {
    let (is_done, hash) = hashed(&[], "secret");
    assert!(is_done && hash.starts_with("$argon2id$"), "{hash}");
    let (is_done, line) = hashed(&["--json", "a"], "secret");
    assert!(
        is_done && line.starts_with("{\"user\":\"a:$argon2id$"),
        "{line}"
    );
    for (arguments, input) in [
        (&["admin"][..], ""),
        (&["admin"], "\n"),
        (&["a:b"], "secret\n"),
        (&["admin"], &"x".repeat(2000)),
    ] {
        assert_eq!(hashed(arguments, input), (false, String::new()));
    }
}
