//! nginx with sendfile: no seed, but the floor of what it costs to put a file's bytes on sockets.

use super::{PEERS_MAX, Place, Protocol, Rival, missing_program, version_line};
use crate::harness::children::Program;
use crate::harness::folder;

/// Debian's nginx, or any in the path.
pub struct Nginx;

impl Rival for Nginx {
    fn name(&self) -> &str {
        "nginx"
    }

    fn settings(&self) -> String {
        "sendfile and tcp_nopush, one worker per core, open files cached; HTTP/1.1 ranges of a \
         piece"
            .to_owned()
    }

    fn missing(&self) -> Option<String> {
        missing_program(&program(), "apt-get install nginx-light")
    }

    fn version(&self) -> String {
        version_line(&Program::new(program()).arg("-v"))
    }

    fn program(&self, place: &Place<'_>) -> anyhow::Result<Program> {
        // A master that root started gives its workers another user, who may not read the content.
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let (port, cores) = (place.port, place.cores);
        let (work, directory) = (place.work.display(), place.data.directory.display());
        let text = format!(
            "{user}
daemon off;
worker_processes {cores};
worker_rlimit_nofile 65536;
pid {work}/nginx.pid;
error_log {work}/log error;
events {{
    worker_connections {PEERS_MAX};
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max=16;
    default_type application/octet-stream;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root \"{directory}\";
    }}
}}
"
        );
        let config = folder::write(place.work, "nginx.conf", text)?;
        Ok(Program::new(program())
            .arg("-p")
            .arg(place.work)
            .arg("-e")
            .arg(place.work.join("log"))
            .arg("-c")
            .arg(config))
    }

    fn protocol(&self) -> Protocol {
        Protocol::Http
    }

    fn has_children(&self) -> bool {
        true
    }
}

/// In `/usr/sbin`, which is not in the path of users.
fn program() -> String {
    let usual = "/usr/sbin/nginx";
    match std::path::Path::new(usual).is_file() {
        true => usual.to_owned(),
        false => "nginx".to_owned(),
    }
}
