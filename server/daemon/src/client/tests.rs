//! A server of our own that answers what the real one may, over a socket and over TCP.

use super::place::find_in;
use super::*;
use crate::cli::Global;
use crate::failure::Failure;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use control::config::Environment;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};

/// What it serves.
fn router() -> Router {
    let problem = |status: StatusCode, detail: &str| {
        let body = json!({
            "type": "about:blank", "title": "t", "status": status.as_u16(),
            "detail": detail, "field": "limits.upload_rate"
        });
        (status, body.to_string())
    };
    Router::new()
        .route(
            "/api/v1/echo",
            get(|headers: HeaderMap| async move {
                let token = headers.get(header::AUTHORIZATION);
                let token = token.and_then(|token| token.to_str().ok()).unwrap_or("-");
                json!({ "token": token }).to_string()
            }),
        )
        .route(
            "/api/v1/problem",
            get(move || async move { problem(StatusCode::CONFLICT, "it is\x1b busy") }),
        )
        .route(
            "/api/v1/field",
            get(move || async move {
                problem(StatusCode::BAD_REQUEST, "limits.upload_rate: it is no rate")
            }),
        )
        .route("/api/v1/token", get(|| async { StatusCode::UNAUTHORIZED }))
        .route("/api/v1/odd", get(|| async { "<html>" }))
        .route(
            "/api/v1/elsewhere",
            get(|| async { (StatusCode::FOUND, [(header::LOCATION, "http://192.0.2.1/")]) }),
        )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A server at a socket in a folder.
fn at_socket(folder: &Path) -> Place {
    let path = folder.join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async { axum::serve(listener, router()).await.unwrap() });
    Place::Socket(path)
}

fn token(text: &str) -> Option<Token> {
    Some(Token {
        text: text.to_owned(),
        source: "of a test".to_owned(),
    })
}

async fn asked(place: &Place, token: Option<Token>, path: &str) -> Result<Value, Error> {
    let client = Client::new(place.clone(), token, None).unwrap();
    client.get(path).await
}

#[test]
fn a_socket_and_a_port_are_asked_alike() {
    let folder = TempDir::new().unwrap();
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router()).await.unwrap() });
        for place in [at_socket(folder.path()), Place::Url(url)] {
            let answer = asked(&place, token("secret"), "/echo").await.unwrap();
            assert_eq!(answer["token"], "Bearer secret");
            let answer = asked(&place, None, "/echo").await.unwrap();
            assert_eq!(answer["token"], "-");
        }
    });
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    runtime().block_on(async {
        let place = at_socket(folder.path());
        let refused = |text: &str, status| Error::Refused {
            status,
            text: text.to_owned(),
        };
        let error = asked(&place, None, "/problem").await.unwrap_err();
        assert_eq!(error, refused("limits.upload_rate: it is\\u{1b} busy", 409));
        let error = asked(&place, None, "/field").await.unwrap_err();
        assert_eq!(
            error,
            refused("limits.upload_rate: it is no rate", 400),
            "once"
        );
        let error = asked(&place, None, "/token").await.unwrap_err();
        assert!(error.to_string().contains("--token-file"), "{error}");
        let error = asked(&place, token("secret"), "/token").await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not take the token of a test"),
            "{error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
        let error = asked(&place, None, "/nothing").await.unwrap_err();
        assert!(error.is_not_found());
        assert!(
            error.to_string().contains("does not know /nothing"),
            "{error}"
        );
        let error = asked(&place, None, "/odd").await.unwrap_err();
        assert!(matches!(error, Error::Odd(_)), "{error}");
        let error = asked(&place, None, "/elsewhere").await.unwrap_err();
        assert!(
            matches!(error, Error::Refused { status: 302, .. }),
            "no redirect is followed"
        );
    });
}

#[test]
fn a_server_that_is_not_there_is_told_by_where_it_was_looked_for() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("api.sock");
    runtime().block_on(async {
        let place = Place::Socket(socket.clone());
        let error = asked(&place, None, "/echo").await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Unreachable(_)));
        assert!(
            text.contains("api.sock") && text.contains("seedring serve"),
            "{text}"
        );
        assert!(text.starts_with("no server: there is no socket"), "{text}");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let text = asked(&place, None, "/echo").await.unwrap_err().to_string();
        assert!(text.starts_with("no server: nobody answers"), "{text}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let place = Place::Url(format!("http://me:secret@{address}"));
        let text = asked(&place, None, "/echo").await.unwrap_err().to_string();
        assert!(text.starts_with("no server: nobody answers"), "{text}");
        assert!(
            text.contains(&address.to_string()) && !text.contains("secret"),
            "{text}"
        );
    });
}

/// What is found with these; the environment has no configuration file.
fn found(
    state_dir: Option<&Path>,
    args: &ServerArgs,
    named: Option<&str>,
    token: Option<&str>,
) -> Result<(Place, Option<Token>), Failure> {
    let global = Global {
        config: None,
        state_dir: state_dir.map(Path::to_owned),
        json: false,
    };
    let environment = Environment::of([("HOME", "/nonexistent")]);
    find_in(&global, args, named, token.map(str::to_owned), &environment)
}

#[test]
fn the_server_is_the_one_named_else_the_socket_else_the_port() {
    let folder = TempDir::new().unwrap();
    let args = ServerArgs::default();
    let socket = Place::Socket(folder.path().join("api.sock"));
    assert_eq!(
        found(Some(folder.path()), &args, None, None).unwrap(),
        (socket.clone(), None)
    );
    std::fs::write(folder.path().join("api-token"), "abc\n").unwrap();
    let (place, token) = found(Some(folder.path()), &args, None, None).unwrap();
    assert_eq!((place, token.unwrap().text.as_str()), (socket, "abc"));
    let (place, token) = found(None, &args, None, None).unwrap();
    assert_eq!(
        place,
        Place::Url("http://127.0.0.1:8690".into()),
        "there is no socket"
    );
    assert_eq!(token, None);
    let (place, _) = found(None, &args, Some("unix:/run/x.sock"), None).unwrap();
    assert_eq!(place, Place::Socket("/run/x.sock".into()));
    for wrong in [
        "",
        "localhost:8690",
        "unix:x",
        "http://",
        "ftp://x",
        "http://a b",
    ] {
        assert!(
            matches!(
                found(None, &args, Some(wrong), None),
                Err(Failure::Usage(_))
            ),
            "{wrong:?}"
        );
    }
}

#[test]
fn the_token_of_this_machine_is_told_to_no_other() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("api-token"), "abc").unwrap();
    let args = ServerArgs::default();
    let token = |url: &str| {
        let (_, token) = found(Some(folder.path()), &args, Some(url), None).unwrap();
        token.map(|token| token.text)
    };
    for local in [
        "http://127.0.0.1:1",
        "https://localhost",
        "http://[::1]:8690/",
        "unix:/x",
    ] {
        assert_eq!(token(local).as_deref(), Some("abc"), "{local}");
    }
    for other in [
        "http://192.0.2.1:8690",
        "https://seed.example",
        "http://127.0.0.1@evil.example",
        "http://localhost.example/",
        "http://evil.example/127.0.0.1",
    ] {
        assert_eq!(token(other), None, "{other}");
    }
}

#[test]
fn a_token_that_is_named_comes_before_those_that_are_found() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("mine");
    std::fs::write(&file, " of-file \n").unwrap();
    std::fs::write(folder.path().join("api-token"), "of-folder").unwrap();
    let mut args = ServerArgs {
        token_file: Some(file.clone()),
        ..ServerArgs::default()
    };
    let token = |args: &ServerArgs, variable| {
        let (_, token) = found(Some(folder.path()), args, None, variable).unwrap();
        token.unwrap().text
    };
    assert_eq!(token(&args, Some("of-variable")), "of-file");
    assert_eq!(
        token(&ServerArgs::default(), Some("of-variable")),
        "of-variable"
    );
    assert_eq!(token(&ServerArgs::default(), None), "of-folder");
    let shown = format!(
        "{:?}",
        found(Some(folder.path()), &args, None, None).unwrap()
    );
    assert!(
        !shown.contains("of-file") && shown.contains("mine"),
        "{shown}"
    );
    std::fs::write(&file, "two words").unwrap();
    assert!(found(Some(folder.path()), &args, None, None).is_err());
    args.token_file = Some("/nonexistent".into());
    assert!(found(Some(folder.path()), &args, None, None).is_err());
}

#[test]
fn the_configuration_says_where_the_api_is() {
    let global = Global {
        config: None,
        state_dir: None,
        json: false,
    };
    let place = |variables: &[(&str, &str)]| {
        let environment = Environment::of(variables.iter().copied());
        let found = find_in(&global, &ServerArgs::default(), None, None, &environment);
        found.map(|(place, _)| place)
    };
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("x.sock");
    let socket = socket.to_str().unwrap();
    let at = |url: &str| Place::Url(url.to_owned());
    let variables = [
        ("SEEDRING_API__SOCKET", socket),
        ("SEEDRING_API__LISTEN", "[::]:7"),
    ];
    assert_eq!(
        place(&variables).unwrap(),
        at("http://[::1]:7"),
        "there is no socket"
    );
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert_eq!(place(&variables).unwrap(), Place::Socket(socket.into()));
    let off = [
        ("SEEDRING_API__SOCKET", ""),
        ("SEEDRING_API__LISTEN", "0.0.0.0:7"),
    ];
    assert_eq!(place(&off).unwrap(), at("http://127.0.0.1:7"));
    let neither = [("SEEDRING_API__SOCKET", ""), ("SEEDRING_API__LISTEN", "")];
    assert!(matches!(place(&neither), Err(Failure::Usage(_))));
    let wrong = [("SEEDRING_API__LISTEN", "nowhere")];
    assert!(matches!(place(&wrong), Err(Failure::Usage(_))));
}
