//! The conditions that every report names: without them a figure is no claim.

use serde::Serialize;

use crate::measure::Host;

/// The machine, and what this program is.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The version of this program, with the commit that it was built from where it is known.
    pub version: &'static str,
    /// Kernel, CPU, cores, congestion control.
    pub host: Host,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// The cores that the measured programs were kept on; empty: all.
    pub measured_on_cores: Vec<usize>,
}

impl Environment {
    /// This machine, with the measured programs on `cores` (empty: all).
    pub fn here(cores: &[usize]) -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kilobytes = meminfo.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        });
        Self {
            version: crate::VERSION,
            host: Host::here(),
            memory_bytes: kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10),
            measured_on_cores: cores.to_vec(),
        }
    }

    /// The same in lines.
    pub fn to_text(&self) -> String {
        let host = &self.host;
        let pinning = match self.measured_on_cores.as_slice() {
            [] => "measured programs not pinned".to_owned(),
            cores => format!("measured programs on cores {cores:?}"),
        };
        format!(
            "seedring-bench {}\nLinux {} · {} · {} cores · {} GiB · {pinning} \
             · TCP {} by default",
            self.version,
            host.kernel,
            host.cpu,
            host.cores,
            (self.memory_bytes + (1 << 29)) >> 30,
            host.tcp_congestion_control_default,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_named() {
        let here = Environment::here(&[1]);
        assert!(here.memory_bytes > 1 << 20);
        let text = here.to_text();
        assert!(
            text.contains("Linux ") && text.contains("cores [1]"),
            "{text}"
        );
        assert!(here.version.starts_with(env!("CARGO_PKG_VERSION")));
    }
}
