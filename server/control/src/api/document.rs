//! The API's description (OpenAPI), made from the code, and a page that shows it. Both tell nothing
//! of this server, so nobody is asked who it is.

use super::{PREFIX, bulk, feed, log, parts, status, torrents};
use axum::Router;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi;

/// What is described.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Seedring",
        description = "The HTTP API of a Seedring server. Bytes and bytes per second are integers, \
                       times are seconds since 1970, info-hashes hex.",
    ),
    paths(
        torrents::list,
        torrents::add,
        torrents::one,
        torrents::edit,
        torrents::remove,
        torrents::pause,
        torrents::resume,
        torrents::recheck,
        torrents::announce,
        torrents::relocate,
        torrents::queue,
        bulk::act,
        parts::files,
        parts::edit_files,
        parts::rename_file,
        parts::rename_path,
        parts::peers,
        parts::add_peers,
        parts::trackers,
        parts::set_trackers,
        parts::pieces,
        parts::metainfo,
        feed::changes,
        feed::events,
        status::server,
        log::log,
        status::limits,
        status::set_limits,
        status::labels,
        status::categories,
    ),
    components(schemas(super::types::Problem))
)]
struct Described;

/// The description as it is served.
static DOCUMENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| serde_json::to_vec(&document()).unwrap_or_default());

/// The description, with what is the same of every request.
pub(super) fn document() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    document["servers"] = json!([{ "url": PREFIX }]);
    document["security"] = json!([{ "token": [] }, { "password": [] }]);
    document["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer" },
        "password": { "type": "http", "scheme": "basic" },
    });
    let problem = json!({
        "description": "Why it was refused",
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, path) in paths {
        for (_, operation) in path.as_object_mut().into_iter().flatten() {
            operation["responses"]["default"] = problem.clone();
        }
    }
    document
}

/// What the page may load: what comes from here, and nothing written into it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                           connect-src 'self'; frame-ancestors 'none'";

pub(super) fn router() -> Router {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(page))
        .route("/docs.css", get(style))
        .route("/docs.js", get(script))
}

async fn openapi() -> Response {
    of_kind("application/json", DOCUMENT.as_slice())
}

async fn page() -> Response {
    let page = include_bytes!("document/docs.html");
    let mut response = of_kind("text/html; charset=utf-8", page);
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    );
    response
}

async fn style() -> Response {
    let style = include_bytes!("document/docs.css");
    of_kind("text/css; charset=utf-8", style)
}

async fn script() -> Response {
    let script = include_bytes!("document/docs.js");
    of_kind("text/javascript; charset=utf-8", script)
}

fn of_kind(kind: &'static str, body: &'static [u8]) -> Response {
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}
