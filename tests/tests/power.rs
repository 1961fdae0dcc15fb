//! The power is cut at any moment: what `serve` acknowledged before is there afterwards (promise 2).
//!
//! State and data are on file systems in files (ext4 on loop devices), which are shut down as by a
//! loss of power: neither their data nor their journal are written any more. 5 times;
//! `SEEDRING_POWER_CUTS=50` does the whole row. Needs root.
// Helpers outside #[test] functions: a panic there fails the test with its reason.
#![allow(clippy::unwrap_used, clippy::panic)]

use seedring_tests::acknowledged::Acknowledged;
use seedring_tests::content::MIB;
use seedring_tests::need;
use seedring_tests::process::run_ok;
use seedring_tests::served::Served;
use seedring_tests::server::SHORT;
use seedring_tests::skip::{Skip, program};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Room of each file system: its journal takes 4 MiB of it.
const DISK_BYTES: u64 = 96 * MIB;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from here on nothing is written.
const CUT: &str = "import fcntl, os, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, (2).to_bytes(4, 'little'))";

/// A file system in a file.
struct Disk {
    mounted: PathBuf,
    image: PathBuf,
    folder: TempDir,
}

impl Disk {
    fn new() -> Result<Disk, Skip> {
        let mkfs = program("mkfs.ext4", "e2fsprogs")?;
        let folder = TempDir::new().unwrap();
        let disk = Disk {
            mounted: folder.path().join("mounted"),
            image: folder.path().join("image"),
            folder,
        };
        std::fs::create_dir(&disk.mounted).unwrap();
        let image = std::fs::File::create(&disk.image).unwrap();
        image.set_len(DISK_BYTES).unwrap();
        let mut make = Command::new(mkfs);
        make.args(["-q", "-E", "lazy_itable_init=0,nodiscard"]);
        run_ok("mkfs.ext4", make.arg(&disk.image), SHORT);
        match disk.mount() {
            Ok(()) => Ok(disk),
            Err(why) => Err(Skip::machine(format!("no image can be mounted: {why}"))),
        }
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&self.image);
        let output = mount.arg(&self.mounted).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Cuts its power.
    fn cut(&self) {
        let mut cut = Command::new("python3");
        cut.args(["-c", CUT]).arg(&self.mounted);
        run_ok("the cut", &cut, SHORT);
    }

    /// What it is after its power has come back: its journal is replayed.
    fn again(&self) {
        run_ok("umount", Command::new("umount").arg(&self.mounted), SHORT);
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("-l").arg(&self.mounted).status();
        if unmount.is_ok_and(|status| status.success()) {
            return;
        }
        eprintln!("{} stays mounted", self.folder.path().display());
    }
}

fn synced(folder: &Path) {
    run_ok("sync", Command::new("sync").arg("-f").arg(folder), SHORT);
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    let test = "what_was_acknowledged_survives_the_loss_of_power";
    let rounds = std::env::var("SEEDRING_POWER_CUTS").map_or(5, |count| count.parse().unwrap());
    let disks = [need!(test, Disk::new()), need!(test, Disk::new())];
    let root = TempDir::new_in(&disks[0].mounted).unwrap();
    let mut server = Served::start_below(root, &[]);
    let folders = [server.path("data"), disks[1].mounted.join("moved")];
    let mut acknowledged = Acknowledged::new(&server, folders);
    synced(&disks[0].mounted);
    for round in 0..rounds {
        acknowledged.until_the_end(&mut server, || disks.iter().for_each(Disk::cut));
        disks.iter().for_each(Disk::again);
        server.again();
        acknowledged.check(&server, round);
    }
    acknowledged.check_data(&server);
    // Before its folder goes with the disk.
    drop(server);
}
