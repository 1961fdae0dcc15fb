//! What this program says: reports on stdout, progress and errors on stderr.
//!
//! A reader that has gone (`| head`) ends nothing: the measurement goes on, what was set is
//! restored, and the exit code says how it went. The macros of the standard library would panic
//! then, in the thread that handles signals too; a lint keeps them out of this program.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::Context as _;

/// Prints a report.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text).context("cannot write the report to stdout")
}

fn print_to(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says a line to whoever watches.
pub fn tell(line: impl Display) {
    // Nobody could be told of the failure.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        print_to(&mut writer, "a report").unwrap();
        let mut full = std::fs::File::create("/dev/full").unwrap();
        let error = print_to(&mut full, "a report").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}
