//! A private network of two hosts, in network namespaces: clients that refuse loopback peers
//! (Transmission does) meet the server at an ordinary address, and no client can reach anything
//! outside the test.
//!
//! The test process cannot move into a namespace without unsafe code, so it runs itself again
//! inside one: [`inside`] returns true in that inner run and false in the outer one, where the test
//! is then done.

use crate::process::{Process, run, run_ok};
use crate::skip::{Skip, is_root, program};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

/// The address of the server's host.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of the client's host.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Further addresses of the client's host, for clients that are told which to use.
pub const CLIENT_MORE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 3), Ipv4Addr::new(10, 77, 0, 4)];
/// The IPv6 address of the server's host.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The IPv6 address of the client's host.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

const MARK: &str = "SEEDRING_TESTS_LAN";
/// Longest run of a test inside its network.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the test named `test` again in a network namespace of its own. True: this is that inner
/// run.
pub fn inside(test: &str) -> Result<bool, Skip> {
    if std::env::var_os(MARK).is_some() {
        return Ok(true);
    }
    let unshare = program("unshare", "util-linux")?;
    program("ip", "iproute2")?;
    let flags = if is_root() { "-n" } else { "-rn" };
    let probe = Command::new(&unshare)
        .args([flags, "ip", "link", "set", "lo", "up"])
        .output();
    let probe = probe.map_err(|error| Skip::machine(format!("unshare: {error}")))?;
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
        return Err(Skip::machine(format!(
            "no network namespace can be made here: {why}"
        )));
    }
    let mut command = Command::new(unshare);
    command.arg(flags).arg(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads", "1"])
        .env(MARK, "1");
    let (status, process) = run("test in its network", &command, LIMIT);
    assert!(
        status.success(),
        "{test} in its network: {status}\n{}",
        process.transcript()
    );
    Ok(false)
}

/// The two hosts; this process is on the server's.
#[derive(Debug)]
pub struct Lan {
    /// Keeps the client's namespace alive.
    holder: Process,
}

impl Lan {
    /// Builds the network. Only for the inner run.
    pub fn build() -> Self {
        assert!(
            std::env::var_os(MARK).is_some(),
            "a Lan is built inside `lan::inside` only"
        );
        let mut command = Command::new("unshare");
        command.args(["-n", "sleep", "3600"]);
        let mut holder = Process::spawn("client's host", &command);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", holder.pid());
        holder.wait_for("namespace", Duration::from_secs(10), |_| {
            std::fs::read_link(&theirs).ok().filter(|link| *link != own)
        });
        let lan = Self { holder };
        ip(Command::new("ip"), "link set lo up");
        let pid = lan.holder.pid();
        ip(
            Command::new("ip"),
            &format!("link add lan0 type veth peer name lan0 netns {pid}"),
        );
        set_up(
            || Command::new("ip"),
            IpAddr::V4(SERVER),
            IpAddr::V6(SERVER_V6),
            CLIENT,
            CLIENT_V6,
        );
        ip(lan.client_command("ip"), "link set lo up");
        let client = || lan.client_command("ip");
        set_up(
            client,
            IpAddr::V4(CLIENT),
            IpAddr::V6(CLIENT_V6),
            SERVER,
            SERVER_V6,
        );
        for address in CLIENT_MORE {
            let command = lan.client_command("ip");
            ip(command, &format!("addr add {address}/24 dev lan0"));
        }
        lan
    }

    /// A process on the client's host, to name that host's namespace by.
    pub fn client_pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Runs `ip` on the client's host.
    pub fn client_ip(&self, arguments: &str) {
        ip(self.client_command("ip"), arguments);
    }

    /// A command that runs on the client's host.
    pub fn client_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.pid()))
            .arg("--")
            .arg(program);
        command
    }
}

fn set_up(
    command: impl Fn() -> Command,
    own_v4: IpAddr,
    own_v6: IpAddr,
    gateway_v4: Ipv4Addr,
    gateway_v6: Ipv6Addr,
) {
    ip(command(), &format!("addr add {own_v4}/24 dev lan0"));
    ip(
        command(),
        &format!("-6 addr add {own_v6}/64 dev lan0 nodad"),
    );
    ip(command(), "link set lan0 up");
    ip(
        command(),
        &format!("route add default via {gateway_v4} dev lan0"),
    );
    ip(
        command(),
        &format!("-6 route add default via {gateway_v6} dev lan0"),
    );
}

/// Runs `ip` on this host, inside a test's own network.
pub fn ip_here(arguments: &str) {
    ip(Command::new("ip"), arguments);
}

fn ip(mut command: Command, arguments: &str) {
    command.args(arguments.split(' '));
    run_ok(
        &format!("ip {arguments}"),
        &command,
        Duration::from_secs(10),
    );
}
