//! What a command line asks for and cannot be: found before anything is made or started, because a
//! measurement takes minutes. Every reason names the option, what was given, why it cannot be, and
//! what to do.

use std::fs::{self, File};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::thread::{CpuSet, sched_getaffinity};
use socket2::{Domain, Socket, Type};

use crate::harness::children::Program;

/// The command line asks for what cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A folder that is there, and that this user may write to.
pub fn folder(option: &str, path: &Path) -> Result<(), Usage> {
    folder_for(option, path, path)
}

/// The same, or one that is still to be made in a folder that is there.
pub fn folder_to_make(option: &str, path: &Path) -> Result<(), Usage> {
    if path.exists() {
        return folder(option, path);
    }
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    folder_for(option, path, parent.unwrap_or(Path::new(".")))
}

/// The folder `needed`, for the sake of the `given` one.
fn folder_for(option: &str, given: &Path, needed: &Path) -> Result<(), Usage> {
    let why = match fs::metadata(needed) {
        Err(error) => error.to_string(),
        Ok(metadata) if !metadata.is_dir() => "it is no folder".to_owned(),
        Ok(_) => match access(needed, Access::WRITE_OK | Access::EXEC_OK) {
            Err(errno) => format!("it cannot be written to ({errno})"),
            Ok(()) => return Ok(()),
        },
    };
    let about = match given == needed {
        true => String::new(),
        false => format!("{needed:?}, in which it is to be made: "),
    };
    Err(Usage(format!(
        "{option} {given:?}: {about}{why}: make the folder first, or give another"
    )))
}

/// A file that is there, that this user may read, and that is not empty. Returns its length.
pub fn file(option: &str, path: &Path) -> Result<u64, Usage> {
    let wrong = |why: &str| {
        Usage(format!(
            "{option} {path:?}: {why}: give a file that has data"
        ))
    };
    let opened = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let metadata = opened
        .metadata()
        .map_err(|error| wrong(&error.to_string()))?;
    match metadata.len() {
        _ if !metadata.is_file() => Err(wrong("it is no regular file")),
        0 => Err(wrong("it is empty")),
        bytes => Ok(bytes),
    }
}

/// A program that is there: a path, or a name in the `PATH`.
pub fn program(option: &str, path: &Path, what_to_do: &str) -> Result<(), Usage> {
    let has_folder = path.components().count() > 1;
    let why = match (Program::new(path).is_installed(), has_folder) {
        (true, true) => match access(path, Access::EXEC_OK) {
            Ok(()) => return Ok(()),
            Err(errno) => format!("it cannot be run ({errno})"),
        },
        (true, false) => return Ok(()),
        (false, true) => "there is no such program".to_owned(),
        (false, false) => "there is no such program in the PATH".to_owned(),
    };
    Err(Usage(format!("{option} {path:?}: {why}: {what_to_do}")))
}

/// Cores that this process, and so what it starts, may use.
pub fn cores(option: &str, wanted: &[usize]) -> Result<(), Usage> {
    let allowed = sched_getaffinity(None).map_err(|errno| {
        Usage(format!(
            "{option}: cannot ask which cores there are ({errno}): leave it out"
        ))
    })?;
    let there: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    match wanted.iter().find(|core| !there.contains(core)) {
        None => Ok(()),
        Some(core) => Err(Usage(format!(
            "{option} {core}: there is no core {core} for this process: choose among {}",
            ranges(&there)
        ))),
    }
}

/// Ascending numbers, as `taskset` writes them: `0-3,6`.
fn ranges(numbers: &[usize]) -> String {
    let parts = numbers.chunk_by(|one, next| one + 1 == *next);
    let parts = parts.map(|part| match part {
        [first, .., last] => format!("{first}-{last}"),
        _ => format!("{}", part[0]),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// An address that this machine has.
pub fn own_address(option: &str, address: IpAddr) -> Result<(), Usage> {
    // Binding reserves no port for longer than this, and sends nothing.
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Usage(format!(
            "{option} {address}: this machine cannot use it ({error}): give an address that it has"
        ))),
    }
}

/// A congestion control that the kernel has, and that this user may choose for his sockets.
pub fn congestion_control(option: &str, name: &str) -> Result<(), Usage> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    match socket.and_then(|socket| socket.set_tcp_congestion(name.as_bytes())) {
        Ok(()) => Ok(()),
        Err(error) => Err(Usage(format!(
            "{option} {name}: the kernel refuses it ({error}): choose one of \
             net.ipv4.tcp_available_congestion_control"
        ))),
    }
}

/// Room for `bytes` more in `folder`.
pub fn disk_room(option: &str, folder: &Path, bytes: u64) -> Result<(), Usage> {
    let free_bytes = match statvfs(folder) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        // What cannot be asked shows when writing.
        Err(_) => return Ok(()),
    };
    if bytes <= free_bytes {
        return Ok(());
    }
    Err(Usage(format!(
        "{option}: {} MiB are to be written to {folder:?}, which has room for {} MiB: ask for \
         less, or give another --directory",
        bytes >> 20,
        free_bytes >> 20
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<(), Usage>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn folders_and_files_must_be_there_and_of_use() {
        let here = tempfile::tempdir().unwrap();
        let (empty, full) = (here.path().join("empty"), here.path().join("full"));
        File::create(&empty).unwrap();
        fs::write(&full, "data").unwrap();
        folder("--directory", here.path()).unwrap();
        let nowhere = here.path().join("no/where");
        for (path, why) in [(&nowhere, "No such file"), (&full, "no folder")] {
            let said = said(folder("--directory", path));
            assert!(said.starts_with("--directory \"/"), "{said}");
            assert!(
                said.contains(why) && said.contains("make the folder"),
                "{said}"
            );
        }
        folder_to_make("--directory", &here.path().join("new")).unwrap();
        folder_to_make("--directory", Path::new("new")).unwrap();
        let said_of_parent = said(folder_to_make("--directory", &nowhere));
        assert!(
            said_of_parent.starts_with(&format!("--directory {nowhere:?}: ")),
            "{said_of_parent}"
        );
        assert!(said_of_parent.contains("No such file"), "{said_of_parent}");
        assert!(said(folder_to_make("--directory", &full)).contains("no folder"));
        assert_eq!(file("--data", &full).unwrap(), 4);
        for (path, why) in [
            (nowhere.as_path(), "No such file"),
            (here.path(), "no regular file"),
            (empty.as_path(), "it is empty"),
        ] {
            let said = said(file("--data", path).map(|_| ()));
            assert!(
                said.starts_with("--data \"/") && said.contains(why),
                "{said}"
            );
        }
    }

    #[test]
    fn programs_are_looked_for_before_they_are_needed() {
        let here = tempfile::tempdir().unwrap();
        let plain = here.path().join("plain");
        fs::write(&plain, "no program").unwrap();
        let look = |path: &Path| program("--seedring", path, "build it");
        look(Path::new("sh")).unwrap();
        look(&std::env::current_exe().unwrap()).unwrap();
        for (path, why) in [
            (Path::new("/nope"), "no such program: build it"),
            (Path::new("no-such-program"), "in the PATH: build it"),
            (plain.as_path(), "cannot be run (Permission denied"),
        ] {
            let said = said(look(path));
            assert!(said.starts_with("--seedring \""), "{said}");
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn cores_addresses_and_room_are_the_machines() {
        cores("--pin", &[]).unwrap();
        let said_of_cores = said(cores("--pin", &[9_999]));
        assert!(
            said_of_cores.starts_with("--pin 9999: there is no core 9999 for this process"),
            "{said_of_cores}"
        );
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
        own_address("--address", IpAddr::from([127, 0, 0, 9])).unwrap();
        // An address for documentation (RFC 5737).
        let said_of_address = said(own_address("--address", IpAddr::from([203, 0, 113, 1])));
        assert!(said_of_address.contains("--address 203.0.113.1: this machine"));
        let here = std::env::temp_dir();
        disk_room("--size", &here, 0).unwrap();
        assert!(said(disk_room("--size", &here, u64::MAX)).contains("has room for"));
    }
}
